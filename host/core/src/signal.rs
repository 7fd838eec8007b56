//! What a signal is: the row, its columns, and the plugin's verdict on it.
//!
//! Nothing here knows a database, a plugin engine or a clock.

use std::time::Duration;

/// One SQL value, exact: nothing is rounded, what has no case of its own is `Other`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    /// Base-10 text.
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    /// A JSON document, as text.
    Json(String),
    /// Lower-case, hyphenated.
    Uuid(String),
    /// `YYYY-MM-DD`.
    Date(String),
    /// `HH:MM:SS[.ffffff]`.
    Time(String),
    /// RFC 3339 without offset.
    Datetime(String),
    /// RFC 3339 with offset.
    Timestamp(String),
    /// The database's own text form.
    Other(String),
}

/// A column of a signal type's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The database's own name for the type, e.g. `numeric` or `_int4`.
    pub db_type: String,
}

/// What all signals of one call have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalType {
    pub name: String,
    /// Position `i` describes position `i` of every `Signal::values`.
    pub columns: Vec<Column>,
    /// Context for the plugin: `ordered` = `true` where order is promised, `order_key` = the
    /// columns, joined with `,`, within whose values it is.
    pub attributes: Vec<(String, String)>,
}

/// One row that waits to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// The primary key as text: parts joined with `,`, each percent-encoded where it holds
    /// `,`, `:` or `%`.
    pub key: String,
    /// The values of `order_key` as text, joined the same way; empty without `order_key`.
    pub order_key: String,
    /// 1 on the first attempt.
    pub attempt: u32,
    /// In the table's column order.
    pub values: Vec<Value>,
}

impl Signal {
    /// The printable, stable identity of the row: `<signal type>:<primary key>`.
    pub fn id(&self, signal_type: &str) -> String {
        let mut id = String::with_capacity(signal_type.len() + 1 + self.key.len());
        id.push_str(signal_type);
        id.push(':');
        id.push_str(&self.key);
        id
    }
}

/// The plugin's verdict on one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bus has it: the row is deleted.
    Sent,
    /// There was nothing to send: the row is deleted, and counted apart.
    Skip,
    /// Not accepted: the row stays, the attempt is charged.
    Retry {
        reason: String,
        /// Earliest useful moment of the next attempt, from now.
        after: Option<Duration>,
    },
    /// It can never be sent: it becomes a dead letter.
    Reject { reason: String },
    /// It was not tried, because one that must go before it failed: it stays, nothing is charged.
    Held,
}

impl Outcome {
    /// A failure that another attempt may cure, at the relay's own pace.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }
}

/// The plugin's verdict on a whole call: nothing of it was sent, nothing is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The bus can't be reached: the signal type pauses.
    Unavailable { reason: String, after: Option<Duration> },
    /// An operator has to act.
    Misconfigured { reason: String },
}

/// What a sender answers for a batch: one outcome per signal, or an outage for all.
pub type Verdict = Result<Vec<Outcome>, Outage>;
