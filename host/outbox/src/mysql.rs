//! The MySQL and MariaDB adapter: READ COMMITTED, so that no gap of a user's table is locked.
//!
//! Dates of zero and keys of zero must come back as they were (see `SESSION`). `connection` runs its
//! sessions.

use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlPoolOptions, MySqlRow};
use sqlx::{Arguments, ConnectOptions as _, Executor, Row, TypeInfo, ValueRef};

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, ReadRow, Session};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::{Arg, Placeholder, Sql};
use super::table::{Description, Kind, Table, TableColumn};
use super::text;
use signalbus_core::key::split_key;
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

async fn describe(session: &mut dyn Session, name: &[String]) -> Result<Option<Description>, Error> {
    let table = name.last().map_or("", String::as_str);
    let from = |text: &str| {
        let mut sql = Sql::new(Placeholder::Question, text);
        sql.push(" WHERE table_name = ").arg(table).push(" AND table_schema = ");
        match name {
            [schema, _] => sql.arg(schema.as_str()),
            _ => sql.push("database()"),
        };
        sql
    };
    let mut sql = from("SELECT column_name, data_type, column_type, is_nullable, extra FROM information_schema.columns");
    sql.push(" ORDER BY ordinal_position");
    let rows = session.rows(sql).await?;
    let counts = rows.iter().any(|row| row[4].as_deref().is_some_and(|extra| extra.contains("auto_increment")));
    let mut columns: Vec<TableColumn> = rows.iter().map(|row| column(row)).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    if columns.iter().any(|column| column.sql_type == "longtext") {
        mark_json(session, from, &mut columns).await?;
    }
    let mut sql = from("SELECT index_name, column_name FROM information_schema.statistics");
    sql.push(" AND column_name IS NOT NULL ORDER BY index_name, seq_in_index");
    let parts = session.rows(sql).await?;
    let key: Vec<usize> = parts
        .iter()
        .filter(|row| row[0].as_deref() == Some("PRIMARY"))
        .filter_map(|row| columns.iter().position(|column| Some(&column.name) == row[1].as_ref()))
        .collect();
    let engines = "SELECT t.engine FROM information_schema.tables t \
         JOIN information_schema.engines e ON e.engine = t.engine AND e.transactions <> 'YES'";
    let unsafe_engine = session.rows(from(engines)).await?.into_iter().flatten().next().flatten();
    let indexes = super::table::grouped(parts);
    let obstacles = obstacles(session, name).await?;
    let unique_keys = key.len() == 1 && (counts || columns[key[0]].kind == Kind::Uuid);
    Ok(Some(Description { columns, key, indexes, unsafe_engine, unique_keys, obstacles, ..Description::default() }))
}

/// What may refuse to let a row be deleted.
async fn obstacles(session: &mut dyn Session, name: &[String]) -> Result<Vec<String>, Error> {
    let table = name.last().map_or("", String::as_str);
    let schema = |sql: &mut Sql| {
        match name {
            [schema, _] => sql.arg(schema.as_str()),
            _ => sql.push("database()"),
        };
    };
    let mut sql = Sql::new(
        Placeholder::Question,
        "SELECT concat('foreign key \"', constraint_name, '\" of table \"', table_name, '\"') \
         FROM information_schema.referential_constraints WHERE delete_rule NOT IN ('CASCADE', 'SET NULL') \
         AND referenced_table_name = ",
    );
    sql.arg(table).push(" AND unique_constraint_schema = ");
    schema(&mut sql);
    sql.push(
        " UNION ALL SELECT concat('trigger \"', trigger_name, '\"') FROM information_schema.triggers \
         WHERE event_manipulation = 'DELETE' AND event_object_table = ",
    );
    sql.arg(table).push(" AND event_object_schema = ");
    schema(&mut sql);
    Ok(session.rows(sql).await?.into_iter().flatten().flatten().collect())
}

/// MariaDB's JSON is a LONGTEXT with a check that its text is valid.
async fn mark_json(session: &mut dyn Session, from: impl Fn(&str) -> Sql, columns: &mut [TableColumn]) -> Result<(), Error> {
    let version = session.rows(Sql::new(Placeholder::Question, "SELECT version()")).await?;
    if !version.iter().flatten().flatten().any(|version| version.contains("MariaDB")) {
        return Ok(());
    }
    let checks = "SELECT check_clause FROM (SELECT check_clause, table_name, constraint_schema AS table_schema \
         FROM information_schema.check_constraints) c";
    let checks = session.rows(from(checks)).await?;
    for column in columns.iter_mut().filter(|column| column.sql_type == "longtext") {
        let valid = format!("json_valid({})", MySqlDialect.quote(&column.name));
        if checks.iter().flatten().flatten().any(|check| *check == valid) {
            (column.kind, column.db_type) = (Kind::Json, "json".to_owned());
        }
    }
    Ok(())
}

fn column(row: &[Cell]) -> TableColumn {
    let text = |n: usize| row[n].clone().unwrap_or_default();
    let (data_type, column_type) = (text(1).to_lowercase(), text(2));
    TableColumn {
        name: text(0),
        kind: kind(&data_type, column_type.contains("unsigned")),
        db_type: column_type.clone(),
        sql_type: column_type.replace(" unsigned", "").replace(" zerofill", ""),
        nullable: text(3) == "YES",
        generated: text(4).contains("GENERATED") && !text(4).contains("DEFAULT_GENERATED"),
    }
}

fn kind(data_type: &str, unsigned: bool) -> Kind {
    match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" if unsigned => Kind::Unsigned,
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Kind::Int,
        // The driver reads a year as an unsigned number.
        "year" => Kind::Unsigned,
        "float" | "double" => Kind::Float,
        "decimal" => Kind::Decimal,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
        "json" => Kind::Json,
        "uuid" => Kind::Uuid,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "datetime" => Kind::Datetime,
        "timestamp" => Kind::Timestamp,
        "bit" => Kind::Bits,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => Kind::Geometry,
        _ => Kind::Other,
    }
}

impl Driver for MySqlDriver {
    type Db = sqlx::MySql;

    fn begin(purpose: Purpose, _: bool) -> Option<&'static str> {
        match purpose {
            Purpose::Renew | Purpose::Write | Purpose::Settle => Some("START TRANSACTION"),
            Purpose::Single | Purpose::Read => None,
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

impl Dialect for MySqlDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Question
    }

    fn quote(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn now(&self) -> &'static str {
        "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT IGNORE INTO signalbus_lane (signal_type, table_name) VALUES (", ")"]
    }

    fn finds_schema(&self) -> Option<&'static str> {
        Some("SELECT schema_name FROM information_schema.schemata WHERE schema_name = ?")
    }

    fn schema(&self) -> &'static str {
        include_str!("schema/mysql.sql")
    }

    fn version(&self) -> Option<&'static str> {
        None
    }

    fn version_in(&self, column: &TableColumn, reference: &str) -> Option<String> {
        let fine = matches!(column.sql_type.as_str(), "datetime(6)" | "timestamp(6)");
        let told = fine && !column.nullable && !column.generated;
        told.then(|| format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {reference})"))
    }

    fn guard(&self, sql: &mut Sql, table: &Table, rows: &[ReadRow<'_>], _: u32) -> bool {
        let column = table.version.map(|n| &table.columns[n]);
        let quoted = |column: &TableColumn| format!("t.{}", self.quote(&column.name));
        let Some(version) = column.and_then(|column| self.version_in(column, &quoted(column))) else { return false };
        let key: Vec<String> = table.key_columns().map(quoted).collect();
        sql.push(" AND (").push(&key.join(", ")).push(", ").push(&version).push(") IN (").list(
            ", ",
            rows,
            |sql, (key, version)| {
                sql.push("(");
                self.key_args(sql, table, key);
                sql.push(", ").arg(*version).push(")");
            },
        );
        sql.push(")");
        true
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let text = "SELECT CAST(SUM(CRC32(CONCAT_WS(' ', ordinal_position, column_name, column_type, column_key, is_nullable, extra))) AS CHAR) \
             FROM information_schema.columns WHERE table_name = ? AND table_schema = coalesce(?, database())";
        let schema = if let [schema, _] = name { Some(schema.as_str()) } else { None };
        (text, vec![name.last().map_or("", String::as_str).into(), schema.into()])
    }

    fn reads_only(&self) -> &'static str {
        "@@global.read_only = 1"
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let schema = if let [schema, _] = name { Some(schema.as_str()) } else { None };
        let table = name.last().map_or("", String::as_str);
        ("SELECT CONCAT(coalesce(?, database()), '.', ?)", vec![schema.into(), table.into()])
    }

    /// (Of a small table, every row is looked at otherwise.)
    fn delete_from(&self, table: &str) -> String {
        format!("DELETE t FROM {table} t FORCE INDEX (PRIMARY) WHERE ")
    }

    fn mark(&self, table: &str, set: &str) -> String {
        format!("UPDATE {table} t FORCE INDEX (PRIMARY) SET {set} WHERE ")
    }

    fn lock_rows(&self, _: bool) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }

    fn share(&self) -> &'static str {
        " LOCK IN SHARE MODE"
    }

    fn compares_rows(&self) -> bool {
        // Neither MySQL nor MariaDB uses an index for `(a, b) > (x, y)`.
        false
    }

    fn selected(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Date | Kind::Time | Kind::Datetime | Kind::Timestamp | Kind::Decimal | Kind::Uuid | Kind::Other => {
                format!("CAST({reference} AS CHAR)")
            }
            Kind::Bits => {
                let width = column.sql_type.trim_start_matches("bit(").trim_end_matches(')');
                format!("LPAD(BIN({reference} + 0), {width}, '0')")
            }
            Kind::Geometry => format!("ST_AsText({reference})"),
            _ => reference.to_owned(),
        }
    }

    /// An ENUM or a SET is compared as text, and sorted by the places of its members.
    fn compared(&self, column: &TableColumn, reference: &str) -> String {
        if column.sql_type.starts_with("enum(") || column.sql_type.starts_with("set(") {
            return format!("CAST({reference} AS CHAR) COLLATE utf8mb4_bin");
        }
        reference.to_owned()
    }

    /// Collations may hold `a` for `A`, and most of them `a` for `a` with a blank behind it.
    fn exactly(&self, text: &str) -> String {
        format!("CAST({text} AS BINARY)")
    }

    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes => format!("HEX({reference})"),
            Kind::Float => format!("CAST({reference} * 1e0 AS CHAR)"),
            Kind::Bits => format!("CAST({reference} + 0 AS CHAR)"),
            Kind::Text => format!("CONVERT({reference} USING utf8mb4)"),
            _ => format!("CAST({reference} AS CHAR)"),
        }
    }

    /// Numbers and times as text; arithmetic makes a float tell all of its digits.
    fn kept(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes | Kind::Geometry => reference.to_owned(),
            Kind::Float => format!("CAST({reference} * 1e0 AS CHAR)"),
            Kind::Bits => format!("CAST({reference} + 0 AS CHAR)"),
            Kind::Text | Kind::Json => format!("CONVERT({reference} USING utf8mb4)"),
            _ => format!("CAST({reference} AS CHAR)"),
        }
    }

    fn restored(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes | Kind::Geometry => reference.to_owned(),
            Kind::Bits => format!("CAST(CONVERT({reference} USING utf8mb4) AS UNSIGNED)"),
            _ => format!("CONVERT({reference} USING utf8mb4)"),
        }
    }

    /// (As what is kept is bytes, bytes are compared.)
    fn differs(&self, one: &str, other: &str) -> String {
        format!("NOT ({one} <=> {other})")
    }

    /// A string is compared with a number as a float, so numbers are handed over as numbers.
    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        match column.kind {
            Kind::Int => sql.arg(part.parse().map_or(Arg::Null, Arg::Int)),
            Kind::Unsigned => sql.arg(part.parse().map_or(Arg::Null, Arg::Unsigned)),
            Kind::Float => sql.arg(part.parse().map_or(Arg::Null, Arg::Real)),
            Kind::Decimal => sql.push("CAST(").arg(part).push(&format!(" AS {})", column.sql_type)),
            Kind::Bits => sql.push("CAST(").arg(part).push(" AS UNSIGNED)"),
            Kind::Bytes => sql.push("UNHEX(").arg(part).push(")"),
            _ => sql.arg(part),
        };
    }

    /// `VALUES` lists and row constructors are not the same in MySQL and MariaDB: plain terms are.
    fn key_in(&self, sql: &mut Sql, table: &Table, keys: &[&str]) {
        let columns: Vec<&TableColumn> = table.key_columns().collect();
        if let [column] = columns[..] {
            sql.push(&self.quote(&column.name)).push(" IN (");
            sql.list(", ", keys, |sql, key| self.key_args(sql, table, key));
            sql.push(")");
            return;
        }
        sql.push("(").list(" OR ", keys, |sql, key| {
            sql.push("(").list(" AND ", columns.iter().zip(split_key(key)), |sql, (column, part)| {
                sql.push(&self.quote(&column.name)).push(" = ");
                self.key_arg(sql, column, &part);
            });
            sql.push(")");
        });
        sql.push(")");
    }

    fn concatenated(&self, parts: &[String]) -> String {
        format!("CONCAT_WS(',', {})", parts.join(", "))
    }
}
