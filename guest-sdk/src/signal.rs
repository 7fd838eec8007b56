//! The signal: one pending row with its signal type.
//!
//! Values stay as the relay passed them; `row` converts them into the author's types.

use crate::bindings::types;
use crate::row::{Cell, RowDeserializer, RowError};
use crate::{Column, Value};
use serde::de::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::iter::Zip;
use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

/// One pending row of the outbox.
///
/// Read it into a type of your own with [`row`](Signal::row), or column by column with
/// [`get`](Signal::get). It serializes as a JSON object with all columns.
#[derive(Clone, Debug)]
pub struct Signal {
    row: types::Signal,
    signal_type: Arc<types::SignalType>,
}

impl Signal {
    pub(crate) fn new(row: types::Signal, signal_type: &Arc<types::SignalType>) -> Self {
        Self { row, signal_type: Arc::clone(signal_type) }
    }

    /// Returns the printable, stable identity of the row: `<signal type>:<primary key>`.
    ///
    /// Delivery is at-least-once, so publish it as the message's de-duplication key.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// Returns the number of this attempt; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.row.attempt
    }

    /// Returns the name of the signal type, e.g. `OrderPlaced`.
    pub fn type_name(&self) -> &str {
        &self.signal_type.name
    }

    /// Returns a context attribute from the relay, e.g. `ordered`.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        let found = self.signal_type.attributes.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns whether the signal type is ordered; see [the crate's documentation](crate#order).
    pub fn is_ordered(&self) -> bool {
        self.attribute("ordered") == Some("true")
    }

    /// Returns the time limit of this call. The relay stops a call that exceeds it, and none of its
    /// signals count as sent.
    pub fn call_timeout(&self) -> Option<Duration> {
        self.attribute("timeout_ms")?.parse().ok().map(Duration::from_millis)
    }

    /// Returns the columns, in the order of the table.
    pub fn columns(&self) -> &[Column] {
        &self.signal_type.columns
    }

    /// Returns a column's value as the relay passed it; `None` if the table has no such column.
    pub fn value(&self, column: &str) -> Option<&Value> {
        self.cells().find(|(known, _)| known.name == column).map(|(_, value)| value)
    }

    /// Returns every column with its value, in the order of the table.
    pub fn cells(&self) -> Zip<slice::Iter<'_, Column>, slice::Iter<'_, Value>> {
        self.signal_type.columns.iter().zip(&self.row.values)
    }

    /// Reads one column.
    ///
    /// ```
    /// # use signalbus_guest::{Signal, Value};
    /// let signal = Signal::builder("OrderPlaced")
    ///     .column("id", 9_007_199_254_740_993)
    ///     .typed("total", "numeric", Value::Decimal("12.50".into()))
    ///     .typed("note", "text", Value::Null)
    ///     .build();
    ///
    /// assert_eq!(signal.get::<i64>("id")?, 9_007_199_254_740_993);
    /// assert_eq!(signal.get::<String>("total")?, "12.50");
    /// assert_eq!(signal.get::<Option<String>>("note")?, None);
    ///
    /// let error = signal.get::<i64>("total").unwrap_err();
    /// assert_eq!(error.to_string(), r#"column "total" of type "numeric": expected i64, found decimal"#);
    /// # Ok::<(), signalbus_guest::RowError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the table has no such column, or the value has another type or is out of range.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, column: &str) -> Result<T, RowError> {
        let found = self.cells().find(|(known, _)| known.name == column);
        let (column, value) = found.ok_or_else(|| RowError::missing(column, self))?;
        Cell { column, value }.read(PhantomData).map_err(|fault| RowError::from_fault(fault, self))
    }

    /// Reads the row into a type of your own, whose fields have the names of the columns.
    ///
    /// Columns without a field are ignored; a tuple takes the columns by position.
    ///
    /// | column's value | reads as |
    /// |---|---|
    /// | NULL | `Option`, as `None` |
    /// | boolean | `bool`, as do the integers 0 and 1 |
    /// | int64 | any integer type it fits; `f64` where exact |
    /// | float64 | `f64`, `f32` |
    /// | decimal | `String`, a decimal type, or an integer type if it is an integer |
    /// | text, uuid, date, time, datetime, timestamp, other | `String`, `&str`, a type parsed from text, an `enum` of unit variants |
    /// | json | any nested type, or `String` for the document itself |
    /// | bytes | `Vec<u8>` |
    ///
    /// [Types of other crates](crate#types-of-other-crates) hold decimals, UUIDs, dates and times. With
    /// `#[serde(flatten)]` and in untagged enums, serde buffers values in a form of its own: read such
    /// columns as `String` there.
    ///
    /// ```
    /// use serde::Deserialize;
    /// # use signalbus_guest::{Signal, Value};
    ///
    /// #[derive(Deserialize)]
    /// struct Order<'a> {
    ///     id: i64,
    ///     customer: &'a str,
    ///     lines: Vec<Line>,
    /// }
    ///
    /// #[derive(Deserialize)]
    /// struct Line {
    ///     article: String,
    ///     count: u32,
    /// }
    ///
    /// # let lines = r#"[{"article": "lamp", "count": 2}]"#;
    /// # let signal = Signal::builder("OrderPlaced")
    /// #     .column("id", 1).column("customer", "Ann").column("unused", true)
    /// #     .typed("lines", "jsonb", Value::Json(lines.into())).build();
    /// let order: Order = signal.row()?;
    /// assert_eq!((order.id, order.customer), (1, "Ann"));
    /// assert_eq!((order.lines[0].article.as_str(), order.lines[0].count), ("lamp", 2));
    /// # Ok::<(), signalbus_guest::RowError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a field has no column, or a column's value does not fit its field.
    pub fn row<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RowError> {
        T::deserialize(RowDeserializer(self)).map_err(|fault| RowError::from_fault(fault, self))
    }

    /// Starts building a signal by hand, for tests.
    ///
    /// ```
    /// use signalbus_guest::{Outcome, Result, Signal, log, testing};
    ///
    /// fn send(signal: &Signal) -> Result {
    ///     let id: i64 = signal.get("id")?;
    ///     log::info!("order placed", id = id);
    ///     Ok(Outcome::Sent)
    /// }
    ///
    /// let signal = Signal::builder("OrderPlaced").column("id", 7).build();
    /// assert_eq!(send(&signal), Ok(Outcome::Sent));
    /// assert_eq!(testing::take_records()[0].message, "order placed");
    /// ```
    pub fn builder(type_name: impl Into<String>) -> SignalBuilder {
        SignalBuilder::new(type_name.into())
    }
}

/// Serializes as a JSON object: decimals, dates and other texts as strings, bytes as base64, JSON
/// columns unchanged, and floats that JSON lacks as `"NaN"`, `"inf"`, `"-inf"`.
impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.row.values.len()))?;
        for (column, value) in self.cells() {
            object.serialize_entry(&column.name, value)?;
        }
        object.end()
    }
}

/// Builds a [`Signal`] by hand, for tests.
///
/// ```
/// use signalbus_guest::{Signal, Value};
///
/// let signal = Signal::builder("OrderPlaced")
///     .id("OrderPlaced:7")
///     .attempt(2)
///     .column("id", 7)
///     .typed("total", "numeric", Value::Decimal("12.50".into()))
///     .attribute("ordered", "true")
///     .build();
/// assert_eq!(signal.id(), "OrderPlaced:7");
/// ```
#[derive(Clone, Debug)]
pub struct SignalBuilder {
    row: types::Signal,
    signal_type: types::SignalType,
}

impl SignalBuilder {
    fn new(name: String) -> Self {
        let row = types::Signal { id: format!("{name}:1"), attempt: 1, values: Vec::new() };
        let signal_type = types::SignalType { name, columns: Vec::new(), attributes: Vec::new() };
        Self { row, signal_type }
    }

    /// Sets the identity; `<signal type>:1` by default.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.row.id = id.into();
        self
    }

    /// Sets the attempt; 1 by default.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.row.attempt = attempt;
        self
    }

    /// Adds a column whose database type has the name of the value's case, e.g. `int64` or `text`.
    pub fn column(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let value = value.into();
        let case = value.case();
        self.typed(name, case, value)
    }

    /// Adds a column with the database's own name for its type, e.g. `numeric`.
    pub fn typed(mut self, name: impl Into<String>, db_type: impl Into<String>, value: impl Into<Value>) -> Self {
        self.signal_type.columns.push(Column { name: name.into(), db_type: db_type.into() });
        self.row.values.push(value.into());
        self
    }

    /// Adds a context attribute.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.signal_type.attributes.push((key.into(), value.into()));
        self
    }

    /// Returns the signal.
    pub fn build(self) -> Signal {
        Signal { row: self.row, signal_type: Arc::new(self.signal_type) }
    }
}
