//! The SQLite adapter: one connection, one writer at a time, and values that carry their own type.
//!
//! Must leave the lock free in between for other writers of the file (see `pauses`). `connection` runs
//! its sessions.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use notify::Watcher as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow};
use sqlx::{Arguments, ConnectOptions as _, Decode, Row, TypeInfo, ValueRef};
use tokio::sync::mpsc;

use super::connection::{Connection, Driver, STATEMENTS};
use super::database::{Cell, Database, Dialect, Purpose, ReadRow, Session, Watch, number, percent_encoded};
use super::error::Error;
use super::pool::ConnectionPool;
use super::sql::{Arg, Placeholder, Sql};
use super::table::{Description, Kind, Table, TableColumn};
use signalbus_core::signal::Value;

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
        // A second connection of this process could only wait for the first one's lock.
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).connect_lazy_with(options);
        Ok(Self { connections: ConnectionPool::single_writer(pool, &file), file, foreign_keys, dependencies: Mutex::default() })
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

/// Hears of every write to the write-ahead log.
struct Writes {
    _watcher: notify::RecommendedWatcher,
    heard: mpsc::Receiver<()>,
}

impl Writes {
    /// `None` if files cannot be watched.
    fn from_file(file: &Path) -> Option<Self> {
        let file = file.canonicalize().ok()?;
        let mut log = file.file_name()?.to_owned();
        log.push("-wal");
        let (hears, heard) = mpsc::channel(1);
        let watch = move |event: notify::Result<notify::Event>| {
            let written =
                |event: &notify::Event| event.kind.is_modify() && event.paths.iter().any(|path| path.file_name() == Some(&log));
            if event.is_ok_and(|event| written(&event)) {
                // One that is not heard yet tells as much as two.
                let _ = hears.try_send(());
            }
        };
        let mut watcher = notify::recommended_watcher(watch).ok()?;
        watcher.watch(file.parent()?, notify::RecursiveMode::NonRecursive).ok()?;
        Some(Self { _watcher: watcher, heard })
    }
}

/// Watches the write-ahead log, and asks SQLite whether another connection has committed.
struct LogWatch {
    writes: Writes,
    session: Box<dyn Session>,
    /// Changes with every commit of another connection, and only with those.
    seen: Option<u64>,
}

impl LogWatch {
    /// Most writes are heard of before the commit can be seen: it is asked for again after so long.
    const DELAYS: [u64; 9] = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600];

    async fn version(&mut self) -> Result<u64, Error> {
        self.session.begin(Purpose::Read).await?;
        let rows = self.session.rows(Sql::new(Placeholder::Question, "PRAGMA data_version")).await?;
        self.session.commit().await?;
        Ok(rows.first().map(|row| number(&row[0])).unwrap_or_default())
    }
}

impl Watch for LogWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async move {
            let mut checks = Self::DELAYS.len();
            loop {
                let delay = Self::DELAYS.get(checks).map(|micros| Duration::from_micros(*micros));
                tokio::select! {
                    // Every write may be a commit's last one, and there are ours among them.
                    heard = self.writes.heard.recv() => match heard {
                        Some(()) => checks = 0,
                        None => return Err(Error::Unreachable("the write-ahead log can no longer be watched".into())),
                    },
                    () = sleep(delay) => checks += 1,
                }
                let version = Some(self.version().await?);
                if version != self.seen {
                    self.seen = version;
                    return Ok(None);
                }
            }
        })
    }
}

/// Waits forever if there is no time to wait for.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// What depends on what in a database: triggers and foreign keys, of all tables.
#[derive(Default)]
struct Dependencies {
    /// Changes with the schema.
    version: String,
    /// Name, table, and whether it fires when a row is deleted.
    triggers: Vec<(String, String, bool)>,
    /// The table that refers, the one that it refers to, and what a deletion there does.
    foreign_keys: Vec<(String, String, String)>,
}

const TRIGGERS: &str = "SELECT name, tbl_name, upper(sql) LIKE '% DELETE %' FROM sqlite_schema WHERE type = 'trigger'";
const FOREIGN_KEYS: &str = "SELECT DISTINCT s.name, f.\"table\", f.on_delete FROM sqlite_schema s, pragma_foreign_key_list(s.name) f \
    WHERE s.type = 'table'";

impl Dependencies {
    /// Reads them, unless the schema is what it was: there may be thousands of tables.
    async fn known(known: &Mutex<Arc<Self>>, session: &mut dyn Session) -> Result<Arc<Self>, Error> {
        let text = |cell: &Cell| cell.clone().unwrap_or_default();
        let version = session.rows(Sql::new(Placeholder::Question, "SELECT schema_version FROM pragma_schema_version")).await?;
        let version = version.first().map(|row| text(&row[0])).unwrap_or_default();
        // (Of this connection: another file may have taken the name, with the same number.)
        let version = format!("{}:{version}", session.connection());
        let before = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if before.version == version {
            return Ok(before);
        }
        let triggers = session.rows(Sql::new(Placeholder::Question, TRIGGERS)).await?;
        let triggers = triggers.iter().map(|row| (text(&row[0]), text(&row[1]), row[2].as_deref() == Some("1")));
        let foreign_keys = session.rows(Sql::new(Placeholder::Question, FOREIGN_KEYS)).await?;
        let foreign_keys = foreign_keys.iter().map(|row| (text(&row[0]), text(&row[1]), text(&row[2])));
        let found = Arc::new(Self { version, triggers: triggers.collect(), foreign_keys: foreign_keys.collect() });
        *known.lock().unwrap_or_else(PoisonError::into_inner) = found.clone();
        Ok(found)
    }

    /// Whether a deletion may change other rows: a connection does not count its own changes among those of others.
    fn rewrites(&self) -> bool {
        let sets = |(_, _, action): &(_, _, String)| action == "SET NULL" || action == "SET DEFAULT";
        !self.triggers.is_empty() || self.foreign_keys.iter().any(sets)
    }

    fn refer_to<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a (String, String, String)> {
        self.foreign_keys.iter().filter(|(_, parent, _)| parent.eq_ignore_ascii_case(table))
    }

    /// What may refuse to let a row be deleted.
    fn obstacles(&self, table: &str, enforced: bool) -> Vec<String> {
        let refuses = |(_, _, action): &&(_, _, String)| enforced && (action == "NO ACTION" || action == "RESTRICT");
        let foreign_keys = self.refer_to(table).filter(refuses).map(|(child, ..)| format!("a foreign key of table \"{child}\""));
        let fires = |(_, of, deletes): &&(_, String, bool)| *deletes && of.eq_ignore_ascii_case(table);
        let triggers = self.triggers.iter().filter(fires).map(|(name, ..)| format!("trigger \"{name}\""));
        foreign_keys.chain(triggers).collect()
    }
}

async fn describe(session: &mut dyn Session, name: &[String]) -> Result<Option<Description>, Error> {
    let (schema, table) = match name {
        [schema, table] => (schema.as_str(), table.as_str()),
        name => ("main", name.last().map_or("", String::as_str)),
    };
    let mut sql = Sql::new(Placeholder::Question, "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(");
    sql.arg(table).push(", ").arg(schema).push(") ORDER BY cid");
    let rows = session.rows(sql).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut columns: Vec<TableColumn> = rows.iter().map(|row| column(row)).collect();
    let mut key: Vec<(u32, usize)> = rows.iter().enumerate().map(|(n, row)| (number(&row[3]), n)).collect();
    key.retain(|(place, _)| *place > 0);
    key.sort_unstable();
    let mut sql = Sql::new(Placeholder::Question, "SELECT name FROM pragma_index_list(");
    sql.arg(table).push(", ").arg(schema).push(") WHERE origin = 'pk'");
    if let [(_, only)] = key[..]
        && columns[only].sql_type.eq_ignore_ascii_case("integer")
        && session.rows(sql).await?.is_empty()
    {
        // A key without an index is the row's own number: nothing but an integer, and never NULL.
        (columns[only].kind, columns[only].nullable) = (Kind::Int, false);
    }
    let mut sql = Sql::new(Placeholder::Question, "SELECT l.name, i.name FROM pragma_index_list(");
    sql.arg(table).push(", ").arg(schema).push(") l, pragma_index_info(l.name, ").arg(schema);
    sql.push(") i WHERE l.partial = 0 ORDER BY l.seq, i.seqno");
    let indexes = super::table::grouped(session.rows(sql).await?);
    let mut sql =
        Sql::new(Placeholder::Question, "SELECT instr(upper(sql), 'AUTOINCREMENT') > 0 FROM sqlite_schema WHERE name = ");
    sql.arg(table);
    let counts = session.rows(sql).await?;
    let unique_keys = counts.iter().flatten().any(|cell| cell.as_deref() == Some("1"));
    let key = key.into_iter().map(|(_, n)| n).collect();
    Ok(Some(Description { columns, key, indexes, unique_keys, ..Description::default() }))
}

fn column(row: &[Cell]) -> TableColumn {
    let declared = row[1].clone().unwrap_or_default();
    TableColumn {
        name: row[0].clone().unwrap_or_default(),
        kind: affinity(&declared),
        db_type: declared.to_lowercase(),
        sql_type: declared,
        nullable: row[2].as_deref() == Some("0"),
        generated: matches!(row[4].as_deref(), Some("2" | "3")),
    }
}

/// The affinity of a declared type, by SQLite's own five rules. A column of any affinity may hold
/// text and blobs, one for integers too: it is treated like one for numbers.
fn affinity(declared: &str) -> Kind {
    let declared = declared.to_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Kind::Decimal
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Kind::Text
    } else if has("BLOB") || declared.is_empty() {
        Kind::Dynamic
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Kind::Float
    } else {
        Kind::Decimal
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
            Purpose::Read => None,
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

impl Dialect for SqliteDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Question
    }

    fn is_embedded(&self) -> bool {
        true
    }

    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn now(&self) -> &'static str {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    }

    fn for_update(&self) -> &'static str {
        // BEGIN IMMEDIATE has locked everything already.
        ""
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT OR IGNORE INTO signalbus_lane (signal_type, table_name) VALUES (", ")"]
    }

    fn schema(&self) -> &'static str {
        include_str!("schema/sqlite.sql")
    }

    fn version(&self) -> Option<&'static str> {
        Some(STATE)
    }

    /// Nothing has changed as long as nobody has committed anything, on the connection that has read the rows.
    fn guard(&self, sql: &mut Sql, table: &Table, rows: &[ReadRow<'_>], connection: u32) -> bool {
        let known = rows.first().map(|(_, version)| version).filter(|first| rows.iter().all(|(_, version)| version == *first));
        let Some(version) = known.filter(|version| **version >> 32 == i64::from(connection) && !table.rewrites) else {
            return false;
        };
        sql.push(" AND ").push(STATE).push(" = ").arg(version & i64::from(u32::MAX));
        true
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        // Triggers and foreign keys of any table: what is deleted here may change rows there, and those may come back.
        let text = "SELECT group_concat(coalesce(sql, name), ';') FROM sqlite_schema \
             WHERE tbl_name = ? COLLATE NOCASE OR type = 'trigger' OR sql LIKE '%ON DELETE SET %'";
        (text, vec![name.last().map_or("", String::as_str).into()])
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        ("SELECT lower(?)", vec![name.join(".").as_str().into()])
    }

    fn reads_only(&self) -> &'static str {
        "1 = 0"
    }

    fn has_rights(&self) -> bool {
        false
    }

    fn share(&self) -> &'static str {
        ""
    }

    fn compares_bytes(&self) -> bool {
        true
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn selected(&self, _: &TableColumn, reference: &str) -> String {
        reference.to_owned()
    }

    /// Text stays text, except where it could be taken for another type's: then it is an SQL literal.
    /// (`quote` is not for text: it stops at a NUL character.)
    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        let literal = format!("'''' || replace({reference}, '''', '''''') || ''''");
        let text = match column.kind {
            Kind::Int => return format!("CAST({reference} AS TEXT)"),
            Kind::Dynamic => literal,
            _ => format!(
                "CASE WHEN substr({reference}, 1, 1) = '''' OR substr({reference}, 1, 2) = 'X''' \
                 THEN {literal} ELSE {reference} END"
            ),
        };
        let text = percent_encoded(&text);
        format!(
            "CASE typeof({reference}) WHEN 'integer' THEN CAST({reference} AS TEXT) WHEN 'text' THEN {text} \
             WHEN 'null' THEN NULL ELSE quote({reference}) END"
        )
    }

    /// Only text needs it, and has got it: numbers and blobs are written without such signs.
    fn encoded(&self, text: String) -> String {
        text
    }

    fn differs(&self, one: &str, other: &str) -> String {
        format!("{one} IS NOT {other} COLLATE BINARY")
    }

    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        if let (Kind::Int, Ok(number)) = (column.kind, part.parse::<i64>()) {
            sql.arg(number);
            return;
        }
        match literal(part, column.kind) {
            // Read by SQLite, which wrote it; a sign in front, so that the cast does not make the
            // other side a number too.
            Arg::Real(_) => sql.push("+CAST(").arg(part).push(" AS REAL)"),
            arg => sql.arg(arg),
        };
    }
}

/// Reads what `key_text` wrote: an SQL literal, or plain text.
fn literal(part: &str, kind: Kind) -> Arg {
    let hex = part.strip_prefix("X'").and_then(|rest| rest.strip_suffix('\''));
    if let Some(bytes) = hex.and_then(unhex) {
        return Arg::Bytes(bytes);
    }
    if let Some(text) = part.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Arg::Text(text.replace("''", "'"));
    }
    // Where text is at home, `012` is text.
    if kind == Kind::Text || !part.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
        return Arg::Text(part.to_owned());
    }
    match (part.parse(), part.parse()) {
        (Ok(integer), _) => Arg::Int(integer),
        (_, Ok(real)) => Arg::Real(real),
        _ => Arg::Text(part.to_owned()),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |n: usize| text.get(n..n + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digits).collect()
}
