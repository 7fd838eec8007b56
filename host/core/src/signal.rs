//! Signals: rows, their columns, and the plugin's verdict on them.
//!
//! Knows no database, plugin engine or clock. Next: [`settlement`](crate::settlement), which turns
//! verdicts into changes.

use std::time::Duration;

/// An exact SQL value: nothing is rounded, and types without a variant of their own are `Other`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    /// Decimal digits as text.
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    /// A JSON document, as text.
    Json(String),
    /// Lower case, hyphenated.
    Uuid(String),
    /// `YYYY-MM-DD`.
    Date(String),
    /// `HH:MM:SS[.ffffff]`.
    Time(String),
    /// RFC 3339 without an offset.
    Datetime(String),
    /// RFC 3339 with an offset.
    Timestamp(String),
    /// The database's own text form.
    Other(String),
}

/// A column of a signal type's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The database's name for the type, e.g. `numeric` or `_int4`.
    pub db_type: String,
}

/// A signal type: what all signals of a call have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalType {
    pub name: String,
    /// Column `i` describes value `i` of every `Signal::values`.
    pub columns: Vec<Column>,
    /// Context for the plugin: `ordered` = `true` for an ordered type, and `order_key` = its order key
    /// columns, joined with `,`.
    pub attributes: Vec<(String, String)>,
}

impl SignalType {
    /// Returns a context attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub fn is_ordered(&self) -> bool {
        self.attribute("ordered") == Some("true")
    }
}

/// A row waiting to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// What consumers deduplicate by: the same for every repetition of one version of one row, and never the
    /// same for two. Plugins treat it as opaque.
    pub id: String,
    /// The primary key as text: its parts joined with `,`, with `,`, `:` and `%` percent-encoded within
    /// each part.
    pub key: String,
    /// The values of `order_key` as text, joined in the same way; empty without `order_key`.
    pub order_key: String,
    /// 1 on the first attempt.
    pub attempt: u32,
    /// In the table's column order.
    pub values: Vec<Value>,
}

impl Signal {
    /// Returns about how many bytes its values take.
    pub fn size(&self) -> usize {
        let size = |value: &Value| match value {
            Value::Null | Value::Boolean(_) | Value::Int64(_) | Value::Float64(_) => 0,
            Value::Bytes(bytes) => bytes.len(),
            Value::Decimal(text)
            | Value::Text(text)
            | Value::Json(text)
            | Value::Uuid(text)
            | Value::Date(text)
            | Value::Time(text)
            | Value::Datetime(text)
            | Value::Timestamp(text)
            | Value::Other(text) => text.len(),
        };
        self.values.iter().map(|value| size_of::<Value>() + size(value)).sum()
    }
}

/// The plugin's verdict on one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bus has accepted it: the row is deleted.
    Sent,
    /// There was nothing to send: the row is deleted, but counted separately.
    Skip,
    /// Not accepted: the row stays, and the attempt is charged.
    Retry {
        reason: String,
        /// Earliest useful time of the next attempt, relative to now; without it, the relay's backoff applies.
        after: Option<Duration>,
    },
    /// It can never be sent: it becomes a dead letter.
    Reject { reason: String },
    /// Not tried, because a signal ahead of it failed: the row stays, and no attempt is charged.
    Held,
}

impl Outcome {
    /// Creates a failure to be retried after the relay's own backoff.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }
}

/// The plugin's verdict on a whole call: nothing was sent, and no attempt is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The bus cannot be reached: the signal type pauses.
    Unavailable { reason: String, after: Option<Duration> },
    /// An operator has to act.
    Misconfigured { reason: String },
}

/// A sender's result for a batch: one outcome per signal, or an outage for all of them.
pub type Verdict = Result<Vec<Outcome>, Outage>;
