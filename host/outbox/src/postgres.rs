//! The PostgreSQL adapter: binary values where they are exact and simple, the server's text elsewhere.
//!
//! Behind a pooler nothing may stay behind on a connection, no setting and no prepared statement.
//! `connection` runs its sessions; `dialect` has the SQL, `catalog` what is known of a table, `watch` the notifications.

mod catalog;
mod dialect;
mod watch;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Arguments, ConnectOptions as _, Executor as _, Row, ValueRef};

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, Session, Watch};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::{Arg, Placeholder, Sql};
use super::table::{Description, Kind, TableColumn};
use super::text;
use catalog::describe;
use signalbus_core::signal::Value;
use watch::Notifications;

/// A PostgreSQL database.
pub(super) struct Postgres {
    connections: Arc<ConnectionPool<sqlx::Postgres>>,
    options: PgConnectOptions,
}

/// The options of a URL.
const OPTIONS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "options[NAME]",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "user",
];

struct PostgresDriver;
struct PostgresDialect;

impl Postgres {
    pub(super) fn open(url: &str, max_connections: u32) -> Result<Self, Error> {
        let parsed = super::url::checked(url, OPTIONS)?;
        let options = PgConnectOptions::from_str(url).map_err(|error| Error::Table(format!("database url: {error}")))?;
        let options = match super::url::ipv6(&parsed) {
            Some(host) => options.host(&host),
            None => options,
        };
        let options = options
            .application_name("signalbus")
            .statement_cache_capacity(STATEMENTS)
            .extra_float_digits(None)
            .disable_statement_logging();
        let behind_pooler = Arc::new(AtomicBool::new(false));
        let found = behind_pooler.clone();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| {
                let found = found.clone();
                Box::pin(async move {
                    // A pooler may have dropped the settings.
                    let settings = "SELECT current_setting('enable_seqscan'), current_setting('server_encoding')";
                    let settings = connection.fetch_one(settings).await?;
                    let behind_pooler = settings.try_get::<&str, _>(0)? == "on";
                    found.fetch_or(behind_pooler, Relaxed);
                    // Such a server refuses a whole result for one byte that is not UTF-8.
                    if settings.try_get::<&str, _>(1)? == "SQL_ASCII" && !behind_pooler {
                        connection.execute("SET client_encoding = 'SQL_ASCII'").await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone().options(SETTINGS));
        Ok(Self { connections: ConnectionPool::perhaps_pooled(pool, behind_pooler, options.clone()), options })
    }
}

impl Database for Postgres {
    fn dialect(&self) -> &dyn Dialect {
        &PostgresDialect
    }

    fn session(&self, signal_type: Option<&str>) -> Box<dyn Session> {
        Box::new(Connection::<PostgresDriver>::new(self.connections.clone(), signal_type))
    }

    fn keep_sides_in(&self, schema: String) {
        self.connections.keep_sides_in(schema);
    }

    fn usage(&self) -> (usize, usize) {
        self.connections.usage()
    }

    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>> {
        Box::pin(async move {
            let mut session = self.session(None);
            session.begin(Purpose::Read).await?;
            let text = "SELECT tgname::text FROM pg_trigger WHERE tgname = 'signalbus_notify' LIMIT 1";
            let triggers = session.rows(Sql::new(Placeholder::Numbered, text)).await?;
            session.commit().await?;
            if triggers.is_empty() {
                return Ok(None);
            }
            if self.connections.is_behind_pooler() {
                return Err(Notifications::unheard());
            }
            let mut notifications = Notifications::listen(self.options.clone()).await?;
            notifications.prove(&mut *session).await?;
            Ok(Some(Box::new(notifications) as Box<dyn Watch>))
        })
    }

    fn announcing(&self, tables: &[(Vec<String>, &str)]) -> Option<Vec<String>> {
        let schema = self.connections.side_schema().unwrap_or_default();
        let function = format!(
            "CREATE OR REPLACE FUNCTION {schema}signalbus_notify() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM pg_notify('signalbus', TG_ARGV[0]); RETURN NULL; END$$"
        );
        let trigger = |(table, signal): &(Vec<String>, &str)| {
            let table = PostgresDialect.table_name(table);
            let signal = signal.replace('\'', "''");
            [
                format!("DROP TRIGGER IF EXISTS signalbus_notify ON {table}"),
                format!(
                    "CREATE TRIGGER signalbus_notify AFTER INSERT ON {table} \
                     FOR EACH STATEMENT EXECUTE FUNCTION {schema}signalbus_notify('{signal}')"
                ),
            ]
        };
        Some(std::iter::once(function).chain(tables.iter().flat_map(trigger)).collect())
    }

    fn describe<'a>(&'a self, name: &'a [String]) -> BoxFuture<'a, Result<Option<Description>, Error>> {
        Box::pin(async move {
            let mut session = self.session(None);
            session.begin(Purpose::Read).await?;
            let described = describe(&mut *session, &PostgresDialect.table_name(name)).await?;
            session.commit().await?;
            Ok(described)
        })
    }
}

/// Settings that decide how values look as text, and plans that stay on the indexes: fresh
/// statistics are rare on a table that is always being emptied.
///
/// A relay that vanishes in the midst of a transaction must not keep its locks: the server ends the session.
const SETTINGS: [(&str, &str); 13] = [
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "4"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "2"),
    ("tcp_user_timeout", "8s"),
    ("datestyle", "ISO,YMD"),
    ("timezone", "UTC"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// The same for one transaction, so that a pooler which hands the connection on does no harm.
macro_rules! begin {
    ($rest:literal) => {
        concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL datestyle = 'ISO, YMD'; ",
            "SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = 'postgres'; ",
            "SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; ",
            "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL idle_in_transaction_session_timeout = '5s'; ",
            "SET LOCAL lock_timeout = '5s'",
            $rest
        )
    };
}

impl Driver for PostgresDriver {
    type Db = sqlx::Postgres;

    fn begin(purpose: Purpose, behind_pooler: bool) -> Option<&'static str> {
        match (purpose, behind_pooler) {
            (Purpose::Renew, false) => Some("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off"),
            (Purpose::Write, false) => Some("BEGIN ISOLATION LEVEL READ COMMITTED"),
            (Purpose::Settle, false) => Some("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '200ms'"),
            (Purpose::Settle, true) => Some(begin!("; SET LOCAL lock_timeout = '200ms'")),
            (Purpose::Single | Purpose::Read | Purpose::Watch, false) => None,
            (Purpose::Renew, true) => Some(begin!("; SET LOCAL synchronous_commit = off")),
            (Purpose::Write | Purpose::Single, true) => Some(begin!("")),
            (Purpose::Read | Purpose::Watch, true) => Some(begin!("; SET TRANSACTION READ ONLY")),
        }
    }

    fn bind(args: Vec<Arg>) -> Result<PgArguments, Error> {
        let mut bound = PgArguments::default();
        for arg in args {
            match arg {
                Arg::Null => bound.add(None::<String>),
                Arg::Int(number) => bound.add(number),
                Arg::Unsigned(number) => bound.add(number.to_string()),
                Arg::Real(number) => bound.add(number),
                Arg::Text(text) => bound.add(text),
                Arg::Bytes(bytes) => bound.add(bytes),
                Arg::Texts(texts) => bound.add(texts),
                Arg::Ints(numbers) => bound.add(numbers),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        Ok(bound)
    }

    fn fits(column: &TableColumn, result: &str) -> bool {
        match column.kind {
            Kind::Boolean => result == "BOOL",
            Kind::Int => matches!(result, "INT2" | "INT4" | "INT8"),
            Kind::Float => matches!(result, "FLOAT4" | "FLOAT8"),
            Kind::Bytes => result == "BYTEA",
            Kind::Uuid => result == "UUID",
            Kind::Jsonb => result == "JSONB",
            Kind::Json => result == "JSON",
            Kind::Text => matches!(result, "TEXT" | "VARCHAR" | "NAME" | "UNKNOWN"),
            // Written as text by the statement.
            _ => true,
        }
    }

    fn size(row: &PgRow) -> usize {
        let size = |n| row.try_get_raw(n).ok().and_then(|value| value.as_bytes().ok().map(<[u8]>::len));
        (0..row.len()).filter_map(size).sum()
    }

    fn affected(result: &sqlx::postgres::PgQueryResult) -> u64 {
        result.rows_affected()
    }

    fn cell(row: &PgRow, position: usize) -> Result<Cell, Error> {
        let raw = row.try_get_raw(position)?;
        if raw.is_null() {
            return Ok(None);
        }
        let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
        Ok(Some(match sqlx::TypeInfo::name(&*raw.type_info()) {
            "INT2" | "INT4" | "INT8" => integer(bytes).to_string(),
            _ => utf8(bytes)?,
        }))
    }

    fn value(row: &PgRow, position: usize, column: &TableColumn) -> Result<Value, Error> {
        let raw = row.try_get_raw(position)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
        Ok(match column.kind {
            Kind::Boolean => Value::Boolean(bytes.first() == Some(&1)),
            Kind::Int => Value::Int64(integer(bytes)),
            Kind::Float => Value::Float64(float(bytes)),
            Kind::Bytes => Value::Bytes(bytes.to_vec()),
            Kind::Uuid => Value::Uuid(uuid::Uuid::from_slice(bytes).unwrap_or_default().to_string()),
            // The binary form of jsonb begins with a version byte.
            Kind::Jsonb => Value::Json(utf8(bytes.get(1..).unwrap_or_default())?),
            kind => text::value(kind, utf8(bytes)?),
        })
    }
}

fn utf8(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// Binary integers are big-endian, of 2, 4 or 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i16::from_be_bytes([a, b]).into(),
        [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).into(),
        _ => bytes.try_into().map(i64::from_be_bytes).unwrap_or_default(),
    }
}

fn float(bytes: &[u8]) -> f64 {
    match *bytes {
        [a, b, c, d] => f32::from_be_bytes([a, b, c, d]).into(),
        _ => bytes.try_into().map(f64::from_be_bytes).unwrap_or_default(),
    }
}
