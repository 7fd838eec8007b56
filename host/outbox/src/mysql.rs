//! The MySQL and MariaDB adapter: READ COMMITTED, so that no gap of a user's table is locked.
//!
//! Dates of zero and keys of zero must come back as they were (see `SESSION`). `connection` runs its
//! sessions; `dialect` has the SQL, `catalog` what is known of a table.

mod catalog;
mod dialect;

use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlPoolOptions, MySqlRow};
use sqlx::{Arguments, ConnectOptions as _, Executor, Row, TypeInfo, ValueRef};

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, Session};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::Arg;
use super::table::{Description, Kind, TableColumn};
use super::text;
use catalog::describe;
use signalbus_core::signal::Value;

/// A MySQL or MariaDB database.
pub(super) struct MySql {
    connections: Arc<ConnectionPool<sqlx::MySql>>,
}

/// The options of a URL.
const OPTIONS: &[&str] =
    &["charset", "collation", "socket", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode", "sslca", "sslcert", "sslkey", "sslmode"];

struct MySqlDriver;
struct MySqlDialect;

/// Old values must be accepted back as they were: dates of zero, and keys of zero. A relay that vanishes in the midst
/// of a transaction must not keep its locks.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
    SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 1, lock_wait_timeout = 5, \
    sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION' \
    /*M!100300 , idle_transaction_timeout = 5 */";

impl MySql {
    pub(super) fn open(url: &str, max_connections: u32) -> Result<Self, Error> {
        let parsed = super::url::checked(url, OPTIONS)?;
        let options = MySqlConnectOptions::from_str(url).map_err(|error| Error::Table(format!("database url: {error}")))?;
        let options = match super::url::ipv6(&parsed) {
            Some(host) => options.host(&host),
            None => options,
        };
        let options = options.statement_cache_capacity(STATEMENTS).disable_statement_logging();
        let pool = MySqlPoolOptions::new()
            .max_connections(max_connections)
            .test_before_acquire(false)
            .acquire_timeout(std::time::Duration::from_secs(10))
            .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
            .connect_lazy_with(options);
        Ok(Self { connections: ConnectionPool::new(pool) })
    }
}

impl Database for MySql {
    fn dialect(&self) -> &dyn Dialect {
        &MySqlDialect
    }

    fn session(&self, signal_type: Option<&str>) -> Box<dyn Session> {
        Box::new(Connection::<MySqlDriver>::new(self.connections.clone(), signal_type))
    }

    fn keep_sides_in(&self, schema: String) {
        self.connections.keep_sides_in(schema);
    }

    fn usage(&self) -> (usize, usize) {
        self.connections.usage()
    }

    fn describe<'a>(&'a self, name: &'a [String]) -> BoxFuture<'a, Result<Option<Description>, Error>> {
        Box::pin(async move {
            let mut session = self.session(None);
            session.begin(Purpose::Read).await?;
            let described = describe(&mut *session, name).await?;
            session.commit().await?;
            Ok(described)
        })
    }
}

impl Driver for MySqlDriver {
    type Db = sqlx::MySql;

    fn begin(purpose: Purpose, _: bool) -> Option<&'static str> {
        match purpose {
            Purpose::Renew | Purpose::Write | Purpose::Settle => Some("START TRANSACTION"),
            Purpose::Single | Purpose::Read | Purpose::Watch => None,
        }
    }

    fn bind(args: Vec<Arg>) -> Result<MySqlArguments, Error> {
        let mut bound = MySqlArguments::default();
        for arg in args {
            match arg {
                Arg::Null => bound.add(None::<String>),
                Arg::Int(number) => bound.add(number),
                Arg::Unsigned(number) => bound.add(number),
                Arg::Real(number) => bound.add(number),
                Arg::Text(text) => bound.add(text),
                Arg::Bytes(bytes) => bound.add(bytes),
                Arg::Texts(_) | Arg::Ints(_) => unreachable!("no statement for MySQL takes an array"),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        Ok(bound)
    }

    fn fits(column: &TableColumn, result: &str) -> bool {
        let unsigned = result.contains("UNSIGNED");
        match column.kind {
            // (`TINYINT(1)` is a BOOLEAN.)
            Kind::Int => result.contains("INT") && !unsigned || result == "BOOLEAN",
            Kind::Unsigned => result.contains("INT") && unsigned || result == "YEAR",
            Kind::Float => matches!(result, "FLOAT" | "DOUBLE"),
            // Texts and bytes: numbers are not written like them.
            _ => !(result.contains("INT") || matches!(result, "BOOLEAN" | "FLOAT" | "DOUBLE" | "DECIMAL" | "YEAR")),
        }
    }

    fn size(row: &MySqlRow) -> usize {
        let size = |n| row.try_get_unchecked::<Option<&[u8]>, _>(n).ok().flatten().map(<[u8]>::len);
        (0..row.len()).filter_map(size).sum()
    }

    fn affected(result: &sqlx::mysql::MySqlQueryResult) -> u64 {
        result.rows_affected()
    }

    fn cell(row: &MySqlRow, position: usize) -> Result<Cell, Error> {
        let raw = row.try_get_raw(position)?;
        if raw.is_null() {
            return Ok(None);
        }
        let name = raw.type_info().name().to_owned();
        Ok(Some(match (name.contains("INT"), name.contains("UNSIGNED")) {
            (true, true) => row.try_get_unchecked::<u64, _>(position)?.to_string(),
            (true, false) => row.try_get_unchecked::<i64, _>(position)?.to_string(),
            _ => readable(row.try_get_unchecked::<Vec<u8>, _>(position)?),
        }))
    }

    fn key(row: &MySqlRow, position: usize) -> Result<Cell, Error> {
        let is_text = row.try_get_unchecked::<Option<String>, _>(position).is_ok();
        if is_text || row.try_get_raw(position)?.type_info().name().contains("INT") {
            return Self::cell(row, position);
        }
        Err(Error::Table("a row's key is not valid UTF-8".into()))
    }

    fn value(row: &MySqlRow, position: usize, column: &TableColumn) -> Result<Value, Error> {
        if row.try_get_raw(position)?.is_null() {
            return Ok(Value::Null);
        }
        Ok(match column.kind {
            Kind::Int => Value::Int64(row.try_get_unchecked(position)?),
            Kind::Unsigned => {
                let number: u64 = row.try_get_unchecked(position)?;
                i64::try_from(number).map_or_else(|_| Value::Decimal(number.to_string()), Value::Int64)
            }
            Kind::Float if column.sql_type.starts_with("float") => {
                Value::Float64(row.try_get_unchecked::<f32, _>(position)?.into())
            }
            Kind::Float => Value::Float64(row.try_get_unchecked(position)?),
            Kind::Bytes => Value::Bytes(row.try_get_unchecked(position)?),
            kind => text::value(kind, row.try_get_unchecked(position)?),
        })
    }
}

/// Bytes for people: as text where they are text.
fn readable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let digits: String = error.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("X'{digits}'")
    })
}
