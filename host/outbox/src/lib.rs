//! The outbox: claims rows for a limited time and settles them, in any of three databases.
//!
//! The algorithm is written once; an adapter per database adds the dialect and the decoding of rows.
//! Knows no plugin and no bus, and deletes only what a settlement names. Next: `claim`, then `settle`.
//!
//! # The rules, and why each is there
//!
//! **A signal is a version of a row.** What was updated while it was sent must not be deleted, and what has taken its
//! key must not inherit anything from it. So a deletion proves in its own statement that the row is what was read:
//! by `xmin` in PostgreSQL, by the state of the database in SQLite, by its content elsewhere. It deletes no range in which
//! a row may lie that has committed late: only one of integers each of which was read.
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
mod ahead;
mod batch;
mod claim;
mod connection;
mod database;
mod dead;
mod ends;
mod error;
mod examine;
mod hold;
mod identity;
mod lease;
mod look;
#[cfg(feature = "mysql")]
mod mysql;
mod open;
mod ordered;
mod outbox;
mod pauses;
mod place;
mod plan;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod ranges;
mod reading;
mod removal;
mod rescan;
mod scan;
mod schema;
mod settle;
mod signal_table;
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

use std::time::Duration;

pub use ahead::Ahead;
pub use batch::Batch;
pub use claim::Claimed;
pub use database::Watch;
pub use dead::{DeadGroup, DeadLetter, DeadRow, Selection};
pub use error::{Cause, Error};
pub use look::{SideCounts, Undeleted};
pub use outbox::Outbox;
pub use schema::Schema;
pub use settle::{Deletions, Settled};
pub use signal_table::{SignalTable, Worker};
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

/// A problem with a table that is used as an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing can be sent. The message names the problem and the cure.
    Fatal(String),
    /// Sending works, but is slow or incomplete.
    Doubtful(String),
}

/// How long a claim lasts without renewal.
pub const LEASE: Duration = Duration::from_secs(8);
/// How often a claim is renewed while its plugin runs.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// How old a claim may be, since it was recorded or renewed, when a batch of it is handed out.
pub const FRESH: Duration = Duration::from_secs(1);

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
