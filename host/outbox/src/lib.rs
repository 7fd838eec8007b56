//! The outbox: claims rows for a limited time and settles them, in any of three databases.
//!
//! The algorithm is written once; an adapter per database adds the dialect and the decoding of rows.
//! Knows no plugin and no bus, and deletes only what a settlement names. Next: `claim`, then `settle`.
//!
//! # The rules, and why each is there
//!
//! **A signal is a version of a row.** What was updated while it was sent must not be deleted, and what has taken its
//! key must not inherit anything from it. So a deletion proves in its own statement that the row is what was read:
//! by `xmin` in PostgreSQL, by the state of the database in SQLite, by its content elsewhere. It never deletes a range:
//! a row that has committed late lies in it, too.
//!
//! **An id is made of what cannot come back.** Keys come back without AUTOINCREMENT, content comes back with an upsert,
//! both come back with a restored backup. So the id names the random seed of the claim, which is on disk before anything
//! is sent, and which whoever goes on inherits: every repetition of one version has one id.
//!
//! **Claims cover about a second, and are proven by every settle.** A claim for each batch would be a queue of its own
//! in a side table, with its own dead rows. A relay that was frozen has lost its claim when it wakes: its settle changes
//! nothing, and its call is cancelled before its lease ends elsewhere.
//!
//! **A settle ends.** A foreign key, a trigger, a policy or a lock may keep a row. It was sent, so it must not be sent
//! again, and its neighbours have nothing to do with it: it is held as sent, and its deletion is tried again by itself.
//! The guilty rows are found by halving, in transactions of their own, since a deferred constraint speaks at the commit.
//!
//! **Nothing waits for a stranger's lock** for longer than a moment: locked rows are passed over, and no lock of ours
//! outlives its holder by more than seconds, because the server ends sessions that sit idle in a transaction.
//!
//! **Rows never move.** Child rows, generated columns and foreign keys depend on them. A hold in a side table says why
//! one stays; it belongs to a version, by a fingerprint of named columns, so that it survives a dump and a new column.
//!
//! **An ordered type is scanned from a floor.** From the head, every scan would walk the index entries of all rows that
//! were deleted, for as long as a snapshot keeps them. Everything unsent lies behind the lowest first row of any claim,
//! except what is deferred: when that is due, and every few seconds for late commits, the scan starts over.
//!
//! **A table is what it is now.** A column that was retyped decodes as something else without an error. So every claim
//! compares the table's shape, and every result its types, before anything is decoded.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_variables, reason = "the adapters share it")
)]

mod active;
mod batch;
mod claim;
mod connection;
mod database;
mod dead;
mod error;
mod hold;
mod identity;
mod look;
#[cfg(feature = "mysql")]
mod mysql;
mod open;
mod pauses;
mod place;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod rescan;
mod schema;
mod settle;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod standing;
mod table;
mod takeover;
mod text;
pub mod trial;
mod unordered;
mod upgrade;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod url;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;

use batch::RowBytes;
use database::{Database, Purpose, Session, number, statement};
use identity::Identity;
use signalbus_core::signal::{Column, SignalType};
use sql::{Arg, Sql};
use table::{OrderTerm, Table, name_parts};

pub use batch::Batch;
pub use claim::Claimed;
pub use database::Watch;
pub use dead::{DeadGroup, DeadLetter, DeadRow, Selection};
pub use error::{Cause, Error};
pub use look::{SideCounts, Undeleted};
pub use schema::Schema;
pub use settle::{Deletions, Settled};
pub use upgrade::{LeftLetters, Upgrade};

/// The table that holds the signals of a type, and the order in which they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The signal type's name.
    pub signal: String,
    /// The table's name, qualified with a schema if needed.
    pub table: String,
    /// A view that shows its key: rows are read from there.
    pub view: Option<String>,
    /// `TABLE.COLUMN`: rows of other tables that are deleted with their signal, before it.
    pub also_delete: Vec<String>,
    /// Columns, each with an SQL expression: what a row is set to when it was sent, instead of being deleted.
    pub on_sent: Vec<(String, String)>,
    /// Columns, each optionally followed by ` desc`.
    pub order_by: Vec<String>,
    /// Columns within whose values the order holds; empty if it holds for the whole table.
    pub order_key: Vec<String>,
    /// The column that is the signal's id, as it is; without it, the relay makes the ids.
    pub id: Option<String>,
    /// The column that changes with the row. (Only MySQL and MariaDB need it.)
    pub version: Option<String>,
    /// Whether a dead letter of an ordered type keeps what follows it, with the same order key, from being sent.
    pub holds_dead: bool,
    /// The most bytes in a batch of more than one row; unlimited without it.
    pub burst_bytes: Option<usize>,
}

impl Source {
    /// Whether SQL of the configuration is part of what removes a row.
    fn is_complex(&self) -> bool {
        !self.also_delete.is_empty() || !self.on_sent.is_empty()
    }
}

/// A database that contains signal tables.
#[derive(Clone)]
pub struct Outbox {
    database: Arc<dyn Database>,
    source_name: Option<String>,
    /// Where the side tables are, if they are in a schema of their own.
    side_schema: Option<String>,
}

/// A problem with a table that is used as an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be sent. The message names the problem and the cure.
    Fatal(String),
    /// Sending works, but is slow or incomplete.
    Doubtful(String),
}

impl Outbox {
    /// Opens the outbox at `url`: `sqlite://…`, `postgres://…` or `mysql://…`.
    ///
    /// Connections are opened lazily.
    ///
    /// # Errors
    /// The URL is invalid, or its scheme is not supported.
    pub fn open(url: &str, max_connections: u32) -> Result<Self, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        let database: Arc<dyn Database> = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Arc::new(sqlite::Sqlite::open(url)?),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Arc::new(postgres::Postgres::open(url, max_connections)?),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Arc::new(mysql::MySql::open(url, max_connections)?),
            // Only where a feature is off: with all of them, each of these was matched above.
            scheme if ["sqlite", "postgres", "postgresql", "mysql", "mariadb"].contains(&scheme) => {
                return Err(Error::Table(format!(
                    "database url: this binary was built without support for {scheme}://; rebuild it with its Cargo feature"
                )));
            }
            _ => {
                return Err(Error::Table(format!("database url: unknown scheme \"{scheme}\"; use sqlite, postgres or mysql")));
            }
        };
        Ok(Self { database, source_name: None, side_schema: None })
    }

    /// Sets the name of the database in the ids of signals, instead of the one that `migrate` gave it.
    #[must_use]
    pub fn with_source(self, name: Option<String>) -> Self {
        Self { source_name: name, ..self }
    }

    /// Keeps the side tables in a schema of their own, instead of the connection's.
    ///
    /// # Errors
    /// The database has no schemas.
    pub fn with_side_schema(self, name: Option<String>) -> Result<Self, Error> {
        if let Some(name) = &name {
            let dialect = self.database.dialect();
            if dialect.finds_schema().is_none() {
                let text = format!("`database.side_schema` is \"{name}\", and SQLite has no schemas; remove it");
                return Err(Error::Table(text));
            }
            self.database.keep_sides_in(format!("{}.", dialect.quote(name)));
        }
        Ok(Self { side_schema: name, ..self })
    }

    /// Resolves a signal type against its table.
    ///
    /// # Errors
    /// Every fatal problem of the table at once, or the database's error.
    pub async fn signal_table(&self, source: &Source) -> Result<SignalTable, Error> {
        // Before the rest: what is altered meanwhile shows later.
        let shape = Shape::of(self.database.dialect(), source);
        let shown = self.read(self.statement(&shape.text, &shape.args)).await?.into_iter().flatten().next().flatten();
        let shape = Shape { shown, ..shape };
        let (table, faults) = self.examine(source).await?;
        let fatal: Vec<String> = faults
            .into_iter()
            .filter_map(|fault| match fault {
                Fault::Fatal(text) => Some(text),
                Fault::Doubtful(_) => None,
            })
            .collect();
        let Some(mut table) = table.filter(|_| fatal.is_empty()) else {
            return Err(Error::Table(fatal.join("; ")));
        };
        self.take_lane(source).await?;
        let numbered = self.database.dialect().numbers_versions();
        table.recurring &= !numbered && table.id.is_none();
        let identity = Identity::new(&source.signal, &self.source().await?, &table, numbered);
        Ok(SignalTable::new(self.database.clone(), &source.signal, table, identity, shape))
    }

    /// Makes the lane of a signal type, or finds that it is its own: the rows of two tables must not meet in one.
    async fn take_lane(&self, source: &Source) -> Result<(), Error> {
        let (text, args) = self.database.dialect().full_name(&name_parts(&source.table));
        let name = self.read(self.statement(text, &args)).await?.into_iter().flatten().next().flatten().unwrap_or_default();
        let ensure = self.database.dialect().ensure_lane();
        let mut sql = self.statement(ensure[0], &[]);
        sql.arg(source.signal.as_str()).push(", ").arg(name.as_str()).push(ensure[1]);
        let mut session = self.database.session(None);
        session.begin(Purpose::Write).await?;
        session.execute_and_commit(sql).await.map_err(schema::missing)?;
        let text = "SELECT table_name FROM signalbus_lane WHERE signal_type = ?";
        let taken = self.read(self.statement(text, &[source.signal.as_str().into()])).await?;
        let taken = taken.into_iter().flatten().next().flatten().unwrap_or_default();
        if taken == name {
            return Ok(());
        }
        if self.database.describe(&name_parts(&taken)).await?.is_some() {
            let signal = &source.signal;
            return Err(Error::Table(format!(
                "signal type \"{signal}\" belongs to table {taken} in this database, and not to {name}: their claims and dead \
                 letters would get mixed up; rename one of the two signal types, or, if the type has moved, \
                 DELETE FROM signalbus_lane WHERE signal_type = '{signal}'"
            )));
        }
        // Its table was renamed, or dropped.
        let text = "UPDATE signalbus_lane SET table_name = ? WHERE signal_type = ?";
        let sql = self.statement(text, &[name.as_str().into(), source.signal.as_str().into()]);
        session.begin(Purpose::Write).await?;
        session.execute_and_commit(sql).await.map(drop)
    }

    /// Returns every problem with a signal type's table.
    ///
    /// # Errors
    /// The database's error.
    pub async fn faults(&self, source: &Source) -> Result<Vec<Fault>, Error> {
        let (table, mut faults) = self.examine(source).await?;
        if let Some(table) = table {
            faults.extend(self.keyless(source, &table).await?);
            faults.extend(self.left_elsewhere(source).await?);
        }
        Ok(faults)
    }

    /// Tells what the ids of a signal type rest on.
    pub fn id_basis(&self, source: &Source) -> String {
        let numbered = self.database.dialect().numbers_versions();
        match (&source.id, numbered) {
            (Some(column), _) => format!("column \"{column}\", as it is; every version of a row needs its own"),
            (None, true) => "the claim, and the transaction that wrote the row".into(),
            (None, false) => {
                "the claim, and the content of the row; to replace a row by an equal one while it is being sent is no change"
                    .into()
            }
        }
    }

    /// Finds rows with NULL in their primary key, as SQLite allows: they cannot be identified, and are never sent.
    async fn keyless(&self, source: &Source, table: &Table) -> Result<Option<Fault>, Error> {
        let dialect = self.database.dialect();
        let missing = |column: &table::TableColumn| format!("{} IS NULL", dialect.quote(&column.name));
        let nullable = table.key_columns().filter(|column| column.nullable);
        let missing: Vec<String> = nullable.map(missing).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let name = dialect.table_name(&table.name);
        let text = format!("SELECT count(*) FROM {name} WHERE {}", missing.join(" OR "));
        let rows = self.read(self.statement(&text, &[])).await?;
        let count: u64 = rows.first().map(|row| number(&row[0])).unwrap_or_default();
        let text = format!(
            "signal type \"{}\": {count} rows of table \"{}\" have NULL in their primary key and are never sent; set their keys",
            source.signal, source.table
        );
        Ok((count > 0).then_some(Fault::Doubtful(text)))
    }

    /// Counts the rows of a signal type's table that are to be sent: no dead letters, and nothing that was sent.
    ///
    /// # Errors
    /// The table does not exist, or the database's error.
    pub async fn pending(&self, source: &Source) -> Result<u64, Error> {
        let name = self.database.dialect().table_name(&name_parts(source.view.as_ref().unwrap_or(&source.table)));
        let text = "SELECT (SELECT count(*) FROM NAME) - (SELECT count(*) FROM signalbus_hold WHERE signal_type = ? AND state <> 'retry')";
        let args = [Arg::from(source.signal.as_str())];
        let mut sql = self.statement("", &[]);
        let (before, behind) = text.split_once("NAME").unwrap_or_default();
        sql.push(before).push(&name).append(self.statement(behind, &args));
        let rows = self.read(sql).await;
        let rows = rows.map_err(|error| match error {
            Error::Refused { message, .. } => Error::Table(format!("signal type \"{}\": {message}", source.signal)),
            error => error,
        })?;
        Ok(rows.first().map(|row| number(&row[0])).unwrap_or_default())
    }

    async fn examine(&self, source: &Source) -> Result<(Option<Table>, Vec<Fault>), Error> {
        let missing = |what: &str, name: &str| {
            let text = format!(
                "signal type \"{}\": {what} \"{name}\" does not exist; create it, or set `{what}` to another",
                source.signal
            );
            Ok((None, vec![Fault::Fatal(text)]))
        };
        let name = name_parts(&source.table);
        let Some(described) = self.database.describe(&name).await? else { return missing("table", &source.table) };
        let view = match &source.view {
            Some(view) => match self.database.describe(&name_parts(view)).await? {
                Some(described) => Some(described.columns),
                None => return missing("view", view),
            },
            None => None,
        };
        let (mut table, mut faults) = schema::resolve(source, name, described, view);
        faults.extend(table.as_mut().and_then(|table| schema::number(source, table, self.database.dialect())));
        for child in table.iter().flat_map(|table| &table.children) {
            let described = self.database.describe(&child.name).await?;
            faults.extend(schema::missing_child(source, child, described.as_ref()));
        }
        if let Some(table) = table.as_ref().filter(|_| faults.iter().all(|fault| matches!(fault, Fault::Doubtful(_)))) {
            faults.extend(self.try_removal(source, table).await?);
        }
        Ok((table, faults))
    }

    /// Proves the right to delete or mark rows.
    async fn try_removal(&self, source: &Source, table: &Table) -> Result<Vec<Fault>, Error> {
        let dialect = self.database.dialect();
        let children = table.children.iter().map(|child| {
            // The types of both columns must fit, too.
            let key = table.key_columns().next().map(|column| dialect.quote(&column.name)).unwrap_or_default();
            let of = format!(
                "{} IN (SELECT {key} FROM {} WHERE 1 = 0) AND ",
                dialect.quote(&child.column),
                dialect.table_name(&table.name)
            );
            let removal = format!("DELETE FROM {} WHERE {of}", dialect.table_name(&child.name));
            (child.name.join("."), removal, "DELETE")
        });
        let right = if table.mark.is_empty() { "DELETE" } else { "UPDATE" };
        let removals = children.chain([(source.table.clone(), removal(dialect, table), right)]);
        let mut faults = Vec::new();
        for (name, removal, right) in removals.filter(|_| dialect.has_rights() || source.is_complex()) {
            let mut session = self.database.session(None);
            session.begin(Purpose::Write).await?;
            match session.execute(self.statement(&format!("{removal}1 = 0"), &[])).await {
                // A lock tells nothing about rights.
                Err(Error::Refused { message, cause }) if cause != Cause::Locked => faults.push(Fault::Fatal(format!(
                    "signal type \"{}\": rows of table \"{name}\" cannot be removed: {message}; grant {right} on it, or correct \
                     the configuration",
                    source.signal
                ))),
                Err(error) if error.is_unreachable() => return Err(error),
                _ => session.rollback().await?,
            }
        }
        Ok(faults)
    }

    async fn read(&self, sql: Sql) -> Result<Vec<Vec<database::Cell>>, Error> {
        let mut session = self.database.session(None);
        session.begin(Purpose::Read).await?;
        let rows = session.rows(sql).await?;
        session.commit().await?;
        Ok(rows)
    }

    fn statement(&self, text: &str, args: &[Arg]) -> Sql {
        statement(self.database.dialect(), text, args)
    }
}

/// The table of one signal type in the outbox.
pub struct SignalTable {
    database: Arc<dyn Database>,
    signal_type: SignalType,
    table: Arc<Table>,
    identity: Identity,
    shape: Shape,
    /// Statement texts that never change.
    texts: Texts,
    scan: Mutex<claim::Scan>,
    /// How many settles are still to look closer.
    wary: AtomicU32,
    /// The number of workers.
    sessions: AtomicUsize,
    row_bytes: RowBytes,
}

struct Texts {
    /// The view, or the table.
    from: String,
    /// The beginning of what deletes or marks rows, up to its condition.
    remove: String,
    /// A row's version, while it is read, and in the transaction that settles it.
    version: String,
    version_now: String,
    /// The selected columns, without the key.
    columns: String,
    key: String,
    order_key: String,
    order: String,
}

impl SignalTable {
    fn new(database: Arc<dyn Database>, signal: &str, table: Table, identity: Identity, shape: Shape) -> Self {
        let dialect = database.dialect();
        let quoted = |n: usize| format!("t.{}", dialect.quote(&table.columns[n].name));
        let columns: Vec<String> = (0..table.columns.len()).map(|n| dialect.selected(&table.columns[n], &quoted(n))).collect();
        let order = |term: &OrderTerm| {
            let direction = if term.descending { " DESC" } else { "" };
            format!("{}{direction}", quoted(term.column))
        };
        let by_key = table.key.iter().map(|&n| dialect.compared(&table.columns[n], &quoted(n)));
        let order: Vec<String> = table.order_by.iter().map(order).chain(by_key).collect();
        let column = table.version.and_then(|n| dialect.version_in(&table.columns[n], &quoted(n)));
        let version = |version: Option<&str>| {
            let own = version.map(|version| versioned(dialect, &table, version));
            own.or_else(|| column.clone()).unwrap_or_else(|| "0".to_owned())
        };
        let texts = Texts {
            from: dialect.table_name(table.view.as_ref().unwrap_or(&table.name)),
            remove: removal(dialect, &table),
            version: version(dialect.version()),
            version_now: version(dialect.version_now()),
            columns: columns.join(", "),
            key: dialect.joined_text(&table, &table.key),
            order_key: dialect.joined_text(&table, &table.order_key),
            order: order.join(", "),
        };
        let describe = |column: &table::TableColumn| Column { name: column.name.clone(), db_type: column.db_type.clone() };
        let mut attributes = Vec::new();
        if table.ordered() {
            attributes.push(("ordered".to_owned(), "true".to_owned()));
            if table.holds_dead {
                attributes.push(("on_dead".to_owned(), "hold".to_owned()));
            }
        }
        if !table.order_key.is_empty() {
            let names: Vec<&str> = table.order_key.iter().map(|&n| table.columns[n].name.as_str()).collect();
            attributes.push(("order_key".to_owned(), names.join(",")));
        }
        let signal_type =
            SignalType { name: signal.to_owned(), columns: table.columns.iter().map(describe).collect(), attributes };
        Self {
            database,
            signal_type,
            table: Arc::new(table),
            identity,
            shape,
            texts,
            scan: Mutex::default(),
            wary: AtomicU32::new(0),
            sessions: AtomicUsize::new(0),
            row_bytes: RowBytes::default(),
        }
    }

    /// Returns the signal type as plugins see it.
    pub fn signal_type(&self) -> &SignalType {
        &self.signal_type
    }

    /// Creates a worker with a connection of its own.
    pub fn session(&self) -> Worker<'_> {
        self.sessions.fetch_add(1, Relaxed);
        let session = self.database.session(Some(&self.signal_type.name));
        Worker { lane: self, session, owner: owner(), undeleted: Vec::new(), sent: false }
    }

    fn statement(&self, text: &str, args: &[Arg]) -> Sql {
        statement(self.database.dialect(), text, args)
    }

    /// Replaces `NOW` by the database's clock.
    fn timed(&self, text: &str, args: &[Arg]) -> Sql {
        self.statement(&text.replace("NOW", self.database.dialect().now()), args)
    }
}

/// A worker of a signal type: claims and settles over a connection of its own.
pub struct Worker<'a> {
    lane: &'a SignalTable,
    session: Box<dyn Session>,
    owner: String,
    /// What is on record as sent, and is to be deleted now.
    undeleted: Vec<hold::SentRow>,
    /// Whether anything is on record as sent.
    sent: bool,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.lane.sessions.fetch_sub(1, Relaxed);
    }
}

/// The shape of a table, and of its view: what shows when they are altered.
struct Shape {
    text: String,
    args: Vec<Arg>,
    /// What the query has shown when the table was opened.
    shown: database::Cell,
}

impl Shape {
    fn of(dialect: &dyn database::Dialect, source: &Source) -> Self {
        let shapes = std::iter::once(&source.table).chain(&source.view).map(|name| dialect.shape(&name_parts(name)));
        let (texts, args): (Vec<_>, Vec<_>) = shapes.unzip();
        let texts: Vec<String> = texts.into_iter().map(|text| format!("coalesce(({text}), '')")).collect();
        Self { text: format!("SELECT {}", dialect.concatenated(&texts)), args: args.concat(), shown: None }
    }
}

/// The beginning of what deletes or marks rows of a table, up to its condition.
fn removal(dialect: &dyn database::Dialect, table: &Table) -> String {
    let name = dialect.table_name(&table.name);
    let set: Vec<String> = table.mark.iter().map(|(column, value)| format!("{} = {value}", dialect.quote(column))).collect();
    if set.is_empty() { dialect.delete_from(&name) } else { dialect.mark(&name, &set.join(", ")) }
}

/// The version of a row: a view has none of its own.
fn versioned(dialect: &dyn database::Dialect, table: &Table, version: &str) -> String {
    if table.view.is_none() || !dialect.numbers_versions() {
        return version.to_owned();
    }
    let key = table.key_columns().map(|column| format!("b.{0} = t.{0}", dialect.quote(&column.name)));
    let key: Vec<String> = key.collect();
    format!("(SELECT {} FROM {} b WHERE {})", version.replace("t.", "b."), dialect.table_name(&table.name), key.join(" AND "))
}

/// How long a claim lasts without renewal.
pub const LEASE: Duration = Duration::from_secs(8);
/// How often a claim is renewed while its plugin runs.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// How old a claim may be, since it was recorded or renewed, when a batch of it is handed out.
pub const FRESH: Duration = Duration::from_secs(1);

/// Returns the name of this process in the claims that it takes.
fn owner() -> String {
    static OWNER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = || format!("{}:{}", std::process::id(), uuid::Uuid::new_v4().simple());
    OWNER.get_or_init(name).clone()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
