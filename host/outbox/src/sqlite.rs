//! The SQLite adapter: one connection that writes, one that reads, and values that carry their own type.
//!
//! Must leave the lock free in between for other writers of the file (see `pauses`). `connection` runs
//! its sessions; `dialect` has the SQL, `catalog` what is known of a table, `watch` the writes to the log.

mod catalog;
mod dialect;
mod watch;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow};
use sqlx::{Arguments, ConnectOptions as _, Decode, Row, TypeInfo, ValueRef};

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, Session, Watch};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::Arg;
use super::table::{Description, TableColumn};
use catalog::{Dependencies, describe};
use signalbus_core::signal::Value;
use watch::{LogWatch, Writes};

/// An SQLite file.
pub(super) struct Sqlite {
    connections: Arc<ConnectionPool<sqlx::Sqlite>>,
    file: PathBuf,
    /// Whether they are enforced.
    foreign_keys: bool,
    dependencies: Mutex<Arc<Dependencies>>,
}

/// Changes with every commit of another connection.
const STATE: &str = "(SELECT data_version FROM pragma_data_version)";

struct SqliteDriver;
struct SqliteDialect;

impl Sqlite {
    pub(super) fn open(url: &str) -> Result<Self, Error> {
        let (url, foreign_keys) = foreign_keys(url)?;
        let options = SqliteConnectOptions::from_str(&url)
            .map_err(|error| Error::Table(format!("database url: {error}")))?
            .foreign_keys(foreign_keys)
            .journal_mode(SqliteJournalMode::Wal)
            .row_buffer_size(1024)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging()
            .busy_timeout(Duration::from_secs(30));
        let file = options.get_filename().to_owned();
        // A second one that writes could only wait for the first one's lock.
        let one = || SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).connect_lazy_with(options.clone());
        Ok(Self {
            connections: ConnectionPool::single_writer(one(), one(), &file),
            file,
            foreign_keys,
            dependencies: Mutex::default(),
        })
    }
}

/// Takes `foreign_keys=on` (or `off`) out of a URL: whether they are enforced is up to every connection, and the
/// default of SQLite is that they are not.
fn foreign_keys(url: &str) -> Result<(String, bool), Error> {
    let Some((file, query)) = url.split_once('?') else { return Ok((url.to_owned(), false)) };
    let (ours, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(|option| option.starts_with("foreign_keys="));
    let enforced = match ours.last().copied() {
        None | Some("foreign_keys=off") => false,
        Some("foreign_keys=on") => true,
        Some(_) => return Err(Error::Table("database url: `foreign_keys` must be \"on\" or \"off\"".into())),
    };
    Ok((format!("{file}?{}", others.join("&")), enforced))
}

impl Database for Sqlite {
    fn dialect(&self) -> &dyn Dialect {
        &SqliteDialect
    }

    fn session(&self, signal_type: Option<&str>) -> Box<dyn Session> {
        Box::new(Connection::<SqliteDriver>::new(self.connections.clone(), signal_type))
    }

    fn keep_sides_in(&self, schema: String) {
        self.connections.keep_sides_in(schema);
    }

    fn usage(&self) -> (usize, usize) {
        self.connections.usage()
    }

    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>> {
        Box::pin(async move {
            let Some(writes) = Writes::from_file(&self.file) else { return Ok(None) };
            let mut watch = LogWatch { writes, session: self.session(None), seen: None };
            watch.seen = Some(watch.version().await?);
            Ok(Some(Box::new(watch) as Box<dyn Watch>))
        })
    }

    fn describe<'a>(&'a self, name: &'a [String]) -> BoxFuture<'a, Result<Option<Description>, Error>> {
        Box::pin(async move {
            let mut session = self.session(None);
            session.begin(Purpose::Read).await?;
            let described = describe(&mut *session, name).await?;
            let dependencies = Dependencies::known(&self.dependencies, &mut *session).await?;
            session.commit().await?;
            let table = name.last().map_or("", String::as_str);
            let unenforced = dependencies.refer_to(table).filter(|_| !self.foreign_keys).map(|(child, ..)| child.clone());
            Ok(described.map(|described| Description {
                rewrites: dependencies.rewrites(),
                obstacles: dependencies.obstacles(table, self.foreign_keys),
                unenforced: unenforced.collect(),
                ..described
            }))
        })
    }
}

impl Driver for SqliteDriver {
    type Db = sqlx::Sqlite;
    const JOINS_STATEMENTS: bool = true;
    const OTHERS: Option<&'static str> = Some(STATE);

    fn begin(purpose: Purpose, _: bool) -> Option<&'static str> {
        match purpose {
            Purpose::Renew => Some("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE"),
            Purpose::Write | Purpose::Settle | Purpose::Single => Some("PRAGMA synchronous = FULL; BEGIN IMMEDIATE"),
            Purpose::Read | Purpose::Watch => None,
        }
    }

    fn bind(args: Vec<Arg>) -> Result<SqliteArguments, Error> {
        let mut bound = SqliteArguments::default();
        for arg in args {
            match arg {
                Arg::Null => bound.add(None::<String>),
                Arg::Int(number) => bound.add(number),
                Arg::Unsigned(number) => bound.add(number.to_string()),
                Arg::Real(number) => bound.add(number),
                Arg::Text(text) => bound.add(text),
                Arg::Bytes(bytes) => bound.add(bytes),
                Arg::Texts(_) | Arg::Ints(_) => unreachable!("no statement for SQLite takes an array"),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        Ok(bound)
    }

    fn size(row: &SqliteRow) -> usize {
        let size = |n| {
            let value = row.try_get_raw(n).ok()?;
            // (Asked for its bytes, a number would become a text.)
            let sized = matches!(value.type_info().name(), "TEXT" | "BLOB");
            if sized { <&[u8] as Decode<sqlx::Sqlite>>::decode(value).ok().map(<[u8]>::len) } else { Some(8) }
        };
        (0..row.len()).filter_map(size).sum()
    }

    fn affected(result: &sqlx::sqlite::SqliteQueryResult) -> u64 {
        result.rows_affected()
    }

    fn cell(row: &SqliteRow, position: usize) -> Result<Cell, Error> {
        Ok(match dynamic(row, position)? {
            Value::Int64(number) => Some(number.to_string()),
            Value::Float64(number) => Some(number.to_string()),
            Value::Text(text) => Some(text),
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        })
    }

    fn key(row: &SqliteRow, position: usize) -> Result<Cell, Error> {
        match dynamic(row, position)? {
            Value::Bytes(_) => Err(Error::Table("a row's key is not valid UTF-8".into())),
            _ => Self::cell(row, position),
        }
    }

    fn value(row: &SqliteRow, position: usize, _: &TableColumn) -> Result<Value, Error> {
        dynamic(row, position)
    }
}

/// A value of the type that it has itself, whatever its column was declared as.
fn dynamic(row: &SqliteRow, position: usize) -> Result<Value, Error> {
    let raw = row.try_get_raw(position)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let class = raw.type_info().name().as_bytes()[0];
    let decoded = match class {
        b'I' => <i64 as Decode<sqlx::Sqlite>>::decode(raw).map(Value::Int64),
        b'R' => <f64 as Decode<sqlx::Sqlite>>::decode(raw).map(Value::Float64),
        b'T' => match <String as Decode<sqlx::Sqlite>>::decode(raw) {
            Ok(text) => Ok(Value::Text(text)),
            // Text that is not UTF-8 is passed on byte by byte.
            Err(_) => <Vec<u8> as Decode<sqlx::Sqlite>>::decode(row.try_get_raw(position)?).map(Value::Bytes),
        },
        _ => <Vec<u8> as Decode<sqlx::Sqlite>>::decode(raw).map(Value::Bytes),
    };
    Ok(decoded.map_err(sqlx::Error::Decode)?)
}
