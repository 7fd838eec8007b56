//! The PostgreSQL adapter: binary values where they are exact and simple, the server's text elsewhere.
//!
//! Behind a pooler nothing may stay behind on a connection, no setting and no prepared statement.
//! `connection` runs its sessions.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions, PgRow};
use sqlx::{Arguments, ConnectOptions as _, Executor as _, Row, ValueRef};

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, ReadRow, Session, Watch};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::{Arg, Placeholder, Sql};
use super::table::{Description, Kind, Table, TableColumn};
use super::text;
use signalbus_core::key::split_key;
use signalbus_core::signal::Value;

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

/// Notifications of the channel `signalbus`, over a connection of their own.
struct Notifications(PgListener);

impl Notifications {
    const CHANNEL: &str = "signalbus";
    /// How long a notification may take that the relay sends itself.
    const PATIENCE: Duration = Duration::from_secs(3);

    async fn listen(options: PgConnectOptions) -> Result<Self, Error> {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(Self::CHANNEL).await?;
        Ok(Self(listener))
    }

    /// A pooler that shares connections lets LISTEN pass, and notifications get lost.
    async fn prove(&mut self, session: &mut dyn Session) -> Result<(), Error> {
        session.begin(Purpose::Write).await?;
        session.rows(Sql::new(Placeholder::Numbered, "SELECT pg_notify('signalbus', '')::text")).await?;
        session.commit().await?;
        match tokio::time::timeout(Self::PATIENCE, self.0.recv()).await {
            Ok(heard) => Ok(heard.map(drop)?),
            Err(_) => Err(Self::unheard()),
        }
    }

    fn unheard() -> Error {
        Error::Table(
            "LISTEN receives no notifications, so the relay polls; if there is a pooler in transaction mode, \
             set `database.url` to the server itself to use LISTEN"
                .into(),
        )
    }
}

impl Watch for Notifications {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async move {
            match self.0.try_recv().await? {
                Some(heard) => Ok(Some(heard.payload().to_owned()).filter(|signal| !signal.is_empty())),
                None => Err(Error::Unreachable("the listening connection was lost".into())),
            }
        })
    }
}

/// A column's kind is that of the type under its domains, if that is one of the database's own.
const COLUMNS: &str = "SELECT a.attname::text, t.typname::text, format_type(a.atttypid, a.atttypmod), \
    (WITH RECURSIVE base AS (SELECT t.* UNION ALL \
    SELECT b.* FROM base JOIN pg_type b ON base.typtype = 'd' AND b.oid = base.typbasetype) \
    SELECT typname::text FROM base WHERE typtype = 'b' AND typnamespace = 'pg_catalog'::regnamespace), \
    (NOT a.attnotnull)::text, (a.attgenerated <> '')::text, \
    array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum)::text \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
    WHERE a.attrelid = to_regclass(";

const INDEXES: &str = "SELECT i.indexrelid::text, a.attname::text FROM pg_index i \
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
    WHERE i.indisvalid AND i.indpred IS NULL AND i.indrelid = to_regclass(";

/// (`relhasrules` would not do: a VACUUM resets it some time after the last rule has gone.)
const SHAPE: &str = "SELECT concat(c.oid, c.relrowsecurity, \
    (SELECT md5(string_agg(concat_ws(' ', rulename, ev_enabled), ',' ORDER BY rulename)) FROM pg_rewrite \
    WHERE ev_class = c.oid AND ev_type = '4'), (SELECT md5(string_agg(concat_ws(' ', attname, atttypid, \
    atttypmod, attnotnull, attgenerated), ',' ORDER BY attnum)) FROM pg_attribute \
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), \
    (SELECT md5(string_agg(concat_ws(' ', tgname, tgenabled), ',' ORDER BY tgname)) FROM pg_trigger \
    WHERE tgrelid = c.oid AND NOT tgisinternal AND tgtype & 8 <> 0), \
    (SELECT indkey::text FROM pg_index WHERE indrelid = c.oid AND indisprimary)) FROM pg_class c WHERE c.oid = to_regclass(?)";

/// What may keep a row from being deleted, and whether rows may be locked.
const OBSTACLES: &str = "SELECT o.kind, o.name FROM (\
    SELECT 'refuses' AS kind, 'foreign key \"' || conname || '\" of table \"' || conrelid::regclass || '\"' AS name, confrelid AS rel \
    FROM pg_constraint WHERE contype = 'f' AND confdeltype IN ('a', 'r') UNION ALL \
    SELECT 'rewrites', 'trigger \"' || tgname || '\"', tgrelid FROM pg_trigger \
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 8 <> 0 UNION ALL \
    SELECT 'rewrites', 'rule \"' || rulename || '\"', ev_class FROM pg_rewrite WHERE ev_type = '4' UNION ALL \
    SELECT 'rewrites', 'row-level security', oid FROM pg_class WHERE relrowsecurity UNION ALL \
    SELECT 'lockable', '', oid FROM pg_class WHERE has_any_column_privilege(oid, 'UPDATE')) o WHERE o.rel = to_regclass(";

async fn describe(session: &mut dyn Session, name: &str) -> Result<Option<Description>, Error> {
    let mut sql = Sql::new(Placeholder::Numbered, COLUMNS);
    sql.arg(name).push(") AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum");
    let rows = session.rows(sql).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let columns = rows.iter().map(|row| column(row)).collect();
    let place = |row: &Vec<Cell>| row[6].as_deref().and_then(|place| place.parse::<i32>().ok());
    let mut key: Vec<(i32, usize)> = rows.iter().enumerate().filter_map(|(n, row)| place(row).map(|place| (place, n))).collect();
    key.sort_unstable();
    let mut sql = Sql::new(Placeholder::Numbered, INDEXES);
    sql.arg(name).push(") ORDER BY i.indexrelid, k.place");
    let indexes = super::table::grouped(session.rows(sql).await?);
    let key = key.into_iter().map(|(_, n)| n).collect();
    let mut sql = Sql::new(Placeholder::Numbered, OBSTACLES);
    sql.arg(name).push(")");
    let rows = session.rows(sql).await?;
    let is = |row: &Vec<Cell>, kind: &str| row[0].as_deref() == Some(kind);
    let obstacles = rows.iter().filter(|row| !is(row, "lockable")).filter_map(|row| row[1].clone()).collect();
    let rewrites = rows.iter().any(|row| is(row, "rewrites"));
    let lockable = rows.iter().any(|row| is(row, "lockable"));
    Ok(Some(Description { columns, key, indexes, rewrites, lockable, obstacles, ..Description::default() }))
}

fn column(row: &[Cell]) -> TableColumn {
    let text = |n: usize| row[n].clone().unwrap_or_default();
    TableColumn {
        name: text(0),
        db_type: text(1),
        sql_type: text(2),
        kind: kind(&text(3)),
        nullable: text(4) == "true",
        generated: text(5) == "true",
    }
}

fn kind(type_name: &str) -> Kind {
    match type_name {
        "bool" => Kind::Boolean,
        "int2" | "int4" | "int8" => Kind::Int,
        "float4" | "float8" => Kind::Float,
        "numeric" => Kind::Decimal,
        "text" | "varchar" | "name" => Kind::Text,
        "bpchar" => Kind::Padded,
        "inet" => Kind::Network,
        "bytea" => Kind::Bytes,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "uuid" => Kind::Uuid,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "timestamp" => Kind::Datetime,
        "timestamptz" => Kind::Timestamp,
        _ => Kind::Other,
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
            (Purpose::Single | Purpose::Read, false) => None,
            (Purpose::Renew, true) => Some(begin!("; SET LOCAL synchronous_commit = off")),
            (Purpose::Write | Purpose::Single, true) => Some(begin!("")),
            (Purpose::Read, true) => Some(begin!("; SET TRANSACTION READ ONLY")),
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

/// A value as its type's output function writes it. A cast does the same, except that it strips the
/// blanks that pad a `char(n)`, and adds `/32` to an address.
fn written(column: &TableColumn, reference: &str) -> String {
    match column.kind {
        Kind::Padded => format!("textin(bpcharout({reference}))"),
        Kind::Network => format!("textin(inet_out({reference}))"),
        _ => format!("{reference}::text"),
    }
}

impl Dialect for PostgresDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Numbered
    }

    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn now(&self) -> &'static str {
        "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT INTO signalbus_lane (signal_type, table_name) VALUES (", ") ON CONFLICT DO NOTHING"]
    }

    fn finds_schema(&self) -> Option<&'static str> {
        Some("SELECT nspname::text FROM pg_namespace WHERE nspname = ?")
    }

    fn schema(&self) -> &'static str {
        include_str!("schema/postgres.sql")
    }

    /// The transaction that wrote the row. (As text: sqlx asks the server about types that it does not know.)
    fn version(&self) -> Option<&'static str> {
        Some("t.xmin::text")
    }

    fn version_now(&self) -> Option<&'static str> {
        Some("CASE WHEN t.xmin = pg_current_xact_id_if_assigned()::xid THEN '-1' ELSE t.xmin::text END")
    }

    fn numbers_versions(&self) -> bool {
        true
    }

    fn lock_rows(&self, may_lock: bool) -> &'static str {
        if may_lock { " FOR UPDATE SKIP LOCKED" } else { "" }
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        (SHAPE, vec![self.table_name(name).as_str().into()])
    }

    fn reads_only(&self) -> &'static str {
        "pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'"
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let text = "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(?)";
        (text, vec![self.table_name(name).as_str().into()])
    }

    fn held_keys(&self, sql: &mut Sql, signal: &str, keys: &mut dyn Iterator<Item = &str>) {
        let keys = keys.map(str::to_owned).collect();
        sql.push("md5(signal_type || ':' || signal_key) IN (SELECT md5(").arg(signal).push("::text || ':' || k) FROM unnest(");
        sql.arg(Arg::Texts(keys)).push("::text[]) k)");
    }

    fn held_under(&self, sql: &mut Sql, signal: &str, column: &str, key: &str) {
        sql.push("md5(h.signal_type || ':' || h.").push(column).push(") = md5(").arg(signal);
        sql.push("::text || ':' || ").push(key).push(")");
    }

    /// (A table that was empty when it was last looked at would be read as a whole for each row.)
    fn per_row(&self) -> &'static str {
        " OFFSET 0"
    }

    /// (The table itself is locked before, with more patience.)
    fn impatient(&self) -> &'static str {
        " AND set_config('lock_timeout', '200ms', true) <> ''"
    }

    /// (A list of arguments would be another statement for each length, and be searched from its start for each row.)
    fn texts(&self, sql: &mut Sql, texts: &[String]) {
        sql.push("(SELECT unnest(").arg(Arg::Texts(texts.to_vec())).push("::text[]))");
    }

    fn guard(&self, sql: &mut Sql, _: &Table, rows: &[ReadRow<'_>], _: u32) -> bool {
        let mut distinct: Vec<String> = rows.iter().map(|(_, version)| version.to_string()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        sql.push(" AND xmin = ANY(").arg(Arg::Texts(distinct)).push("::text[]::xid[])");
        true
    }

    /// (A takeover changes the claim's key: only that waits for this lock.)
    fn share(&self) -> &'static str {
        " FOR KEY SHARE"
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn selected(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Decimal | Kind::Date | Kind::Time | Kind::Datetime | Kind::Timestamp | Kind::Network | Kind::Other => {
                written(column, reference)
            }
            _ => reference.to_owned(),
        }
    }

    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Padded => format!("{reference}::text"),
            _ => written(column, reference),
        }
    }

    fn kept(&self, column: &TableColumn, reference: &str) -> String {
        written(column, reference)
    }

    fn restored(&self, column: &TableColumn, reference: &str) -> String {
        format!("{reference}::{}", column.sql_type)
    }

    fn overriding(&self) -> &'static str {
        " OVERRIDING SYSTEM VALUE"
    }

    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        match part.parse::<i64>() {
            Ok(number) if column.kind == Kind::Int => sql.arg(number).push("::int8"),
            _ => sql.arg(part).push("::text::").push(&column.sql_type),
        };
    }

    /// Arrays: one argument per column, whatever the number of keys, so that one plan serves all.
    fn key_in(&self, sql: &mut Sql, table: &Table, keys: &[&str]) {
        let columns: Vec<&TableColumn> = table.key_columns().collect();
        // (The elements of an array of arrays are no arrays.)
        if let [column] = columns[..]
            && !column.sql_type.ends_with("[]")
        {
            sql.push(&self.quote(&column.name)).push(" = ANY(");
            if column.kind == Kind::Int {
                let numbers = keys.iter().filter_map(|key| key.parse().ok()).collect();
                sql.arg(Arg::Ints(numbers)).push("::int8[])");
            } else {
                let texts = keys.iter().map(|key| split_key(key).collect()).collect();
                sql.arg(Arg::Texts(texts)).push("::text[]::").push(&column.sql_type).push("[])");
            }
            return;
        }
        let split: Vec<Vec<_>> = keys.iter().map(|key| split_key(key).collect()).collect();
        let names: Vec<String> = columns.iter().map(|column| self.quote(&column.name)).collect();
        sql.push("(").push(&names.join(", ")).push(") IN (SELECT ");
        sql.list(", ", columns.iter().enumerate(), |sql, (n, column)| {
            sql.push(&format!("k.k{n}::{}", column.sql_type));
        });
        sql.push(" FROM unnest(");
        sql.list(", ", 0..columns.len(), |sql, n| {
            let texts = split.iter().map(|parts| parts[n].to_string()).collect();
            sql.arg(Arg::Texts(texts)).push("::text[]");
        });
        let aliases: Vec<String> = (0..columns.len()).map(|n| format!("k{n}")).collect();
        sql.push(&format!(") AS k({}))", aliases.join(", ")));
    }
}
