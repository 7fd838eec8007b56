//! The table of one signal type, as it was when it was opened, and its workers.
//!
//! Must never be used once its table is altered: its statements were written for the columns that it had. Next: `claim`
//! and `settle`, which are what its workers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use tokio::sync::Mutex;

use super::Source;
use super::batch::RowBytes;
use super::database::{Cell, Database, Dialect, Session, statement};
use super::hold::SentRow;
use super::identity::Identity;
use super::open::{Holding, Renewal};
use super::removal::removal;
use super::scan::Scan;
use super::sql::{Arg, Sql};
use super::table::{OrderTerm, Table, TableColumn, name_parts};
use signalbus_core::signal::{Column, SignalType};

/// The table of one signal type in the outbox.
pub struct SignalTable {
    pub(super) database: Arc<dyn Database>,
    pub(super) signal_type: SignalType,
    pub(super) table: Arc<Table>,
    pub(super) identity: Identity,
    pub(super) shape: Shape,
    /// Statement texts that never change.
    pub(super) texts: Texts,
    pub(super) scan: Mutex<Scan>,
    /// How many settles are still to look closer.
    pub(super) wary: AtomicU32,
    /// The number of workers.
    pub(super) sessions: AtomicUsize,
    pub(super) row_bytes: RowBytes,
    pub(super) holding: Holding,
    pub(super) renewal: Mutex<Option<Renewal>>,
}

pub(super) struct Texts {
    /// The view, or the table.
    pub(super) from: String,
    /// The beginning of what deletes or marks rows, up to its condition.
    pub(super) remove: String,
    /// A row's version, while it is read, and in the transaction that settles it.
    pub(super) version: String,
    pub(super) version_now: String,
    /// The selected columns, without the key.
    pub(super) columns: String,
    pub(super) key: String,
    pub(super) order_key: String,
    pub(super) order: String,
}

impl SignalTable {
    pub(super) fn new(database: Arc<dyn Database>, signal: &str, mut table: Table, identity: Identity, shape: Shape) -> Self {
        let dialect = database.dialect();
        table.order_key_told = table.order_key.iter().all(|&n| dialect.tells_key(table.columns[n].kind));
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
        let describe = |column: &TableColumn| Column { name: column.name.clone(), db_type: column.db_type.clone() };
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
            holding: Holding::default(),
            renewal: Mutex::default(),
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
        Worker {
            lane: self,
            session,
            owner: owner(),
            ahead: 1,
            undeleted: Vec::new(),
            sent: false,
            tracking: None,
            asked: Instant::now(),
        }
    }

    pub(super) fn statement(&self, text: &str, args: &[Arg]) -> Sql {
        statement(self.database.dialect(), text, args)
    }

    /// Replaces `NOW` by the database's clock.
    pub(super) fn timed(&self, text: &str, args: &[Arg]) -> Sql {
        self.statement(&text.replace("NOW", self.database.dialect().now()), args)
    }
}

/// A worker of a signal type: claims and settles over a connection of its own.
pub struct Worker<'a> {
    pub(super) lane: &'a SignalTable,
    pub(super) session: Box<dyn Session>,
    pub(super) owner: String,
    /// How many batches a claim covers, if there is an order.
    pub(super) ahead: usize,
    /// What is on record as sent, and is to be deleted now.
    pub(super) undeleted: Vec<SentRow>,
    /// Whether anything is on record as sent.
    pub(super) sent: bool,
    /// When it was asked for the claim that it takes.
    pub(super) asked: Instant,
    /// While it records what is settled of a claim.
    pub(super) tracking: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.lane.sessions.fetch_sub(1, Relaxed);
    }
}

/// The shape of a table, and of its view: what shows when they are altered.
pub(super) struct Shape {
    pub(super) text: String,
    pub(super) args: Vec<Arg>,
    /// What the query has shown when the table was opened.
    pub(super) shown: Cell,
}

impl Shape {
    pub(super) fn of(dialect: &dyn Dialect, source: &Source) -> Self {
        let shapes = std::iter::once(&source.table).chain(&source.view).map(|name| dialect.shape(&name_parts(name)));
        let (texts, args): (Vec<_>, Vec<_>) = shapes.unzip();
        let texts: Vec<String> = texts.into_iter().map(|text| format!("coalesce(({text}), '')")).collect();
        Self { text: format!("SELECT {}", dialect.concatenated(&texts)), args: args.concat(), shown: None }
    }
}

/// The version of a row: a view has none of its own.
fn versioned(dialect: &dyn Dialect, table: &Table, version: &str) -> String {
    if table.view.is_none() || !dialect.numbers_versions() {
        return version.to_owned();
    }
    let key = table.key_columns().map(|column| format!("b.{0} = t.{0}", dialect.quote(&column.name)));
    let key: Vec<String> = key.collect();
    format!("(SELECT {} FROM {} b WHERE {})", version.replace("t.", "b."), dialect.table_name(&table.name), key.join(" AND "))
}

/// Returns the name of this process in the claims that it takes.
fn owner() -> String {
    static OWNER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = || format!("{}:{}", std::process::id(), uuid::Uuid::new_v4().simple());
    OWNER.get_or_init(name).clone()
}
