//! Lowers a batch to the arguments of a guest call.
//!
//! Strings and values are borrowed from the rows. Converts the guest's outcomes back, too. `call` makes the calls.

use std::time::Duration;

use super::wit::signalbus::plugin::types as wit;
use signalbus_core::signal::{Column, Outage, Outcome, Signal, SignalType, Value};

/// The attribute `untried` of a call: a retry for this reason says that the signal was not tried, or that it is unknown
/// what became of it.
pub(super) const UNTRIED: &str = "signalbus: not tried";

/// A batch in the form that guest calls borrow from: all values in one list.
pub(super) struct LoweredBatch<'a> {
    signals: &'a [Signal],
    values: Vec<wit::Value<'a>>,
}

impl<'a> LoweredBatch<'a> {
    pub(super) fn new(signals: &'a [Signal]) -> Self {
        Self { signals, values: signals.iter().flat_map(|signal| signal.values.iter().map(value)).collect() }
    }

    /// Returns the signals as arguments of a guest call.
    pub(super) fn signals(&self) -> Vec<wit::Signal<'_>> {
        let mut values = self.values.as_slice();
        let lowered = self.signals.iter().map(|signal| {
            let (own, later) = values.split_at(signal.values.len());
            values = later;
            wit::Signal { id: &signal.id, attempt: signal.attempt, values: own }
        });
        lowered.collect()
    }
}

/// The signal type of a batch in the form that guest calls borrow from.
pub(super) struct LoweredType<'a> {
    name: &'a str,
    columns: Vec<wit::Column<'a>>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> LoweredType<'a> {
    /// Lowers a signal type; `timeout_ms` is the time limit of one call.
    pub(super) fn new(signal_type: &'a SignalType, timeout_ms: &'a str) -> Self {
        let attributes = signal_type.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Self {
            name: &signal_type.name,
            columns: signal_type.columns.iter().map(column).collect(),
            attributes: attributes.chain([("timeout_ms", timeout_ms), ("untried", UNTRIED)]).collect(),
        }
    }

    pub(super) fn signal_type(&self) -> wit::SignalType<'_> {
        wit::SignalType { name: self.name, columns: &self.columns, attributes: &self.attributes }
    }
}

fn column(column: &Column) -> wit::Column<'_> {
    wit::Column { name: &column.name, db_type: &column.db_type }
}

fn value(value: &Value) -> wit::Value<'_> {
    match value {
        Value::Null => wit::Value::Null,
        Value::Boolean(value) => wit::Value::Boolean(*value),
        Value::Int64(value) => wit::Value::Int64(*value),
        Value::Float64(value) => wit::Value::Float64(*value),
        Value::Decimal(text) => wit::Value::Decimal(text),
        Value::Text(text) => wit::Value::Text(text),
        Value::Bytes(bytes) => wit::Value::Bytes(bytes),
        Value::Json(text) => wit::Value::Json(text),
        Value::Uuid(text) => wit::Value::Uuid(text),
        Value::Date(text) => wit::Value::Date(text),
        Value::Time(text) => wit::Value::Time(text),
        Value::Datetime(text) => wit::Value::Datetime(text),
        Value::Timestamp(text) => wit::Value::Timestamp(text),
        Value::Other(text) => wit::Value::Other(text),
    }
}

/// Returns for how long a plugin asks to wait. Nobody would find a row again that waits for ages.
fn wait(millis: u64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    Duration::from_millis(millis).min(LONGEST)
}

impl From<wit::Outcome> for Outcome {
    fn from(outcome: wit::Outcome) -> Self {
        match outcome {
            wit::Outcome::Sent => Self::Sent,
            wit::Outcome::Skip => Self::Skip,
            wit::Outcome::Retry(retry) if retry.reason == UNTRIED => Self::Held,
            wit::Outcome::Retry(retry) => Self::Retry { after: retry.after_ms.map(wait), reason: retry.reason },
            wit::Outcome::Reject(reason) => Self::Reject { reason },
        }
    }
}

impl From<wit::RunOutcome> for Outcome {
    fn from(outcome: wit::RunOutcome) -> Self {
        match outcome {
            wit::RunOutcome::Sent => Self::Sent,
            wit::RunOutcome::Skip => Self::Skip,
            wit::RunOutcome::Retry(retry) => wit::Outcome::Retry(retry).into(),
            wit::RunOutcome::Reject(reason) => Self::Reject { reason },
            wit::RunOutcome::Held => Self::Held,
        }
    }
}

impl From<wit::Outage> for Outage {
    fn from(outage: wit::Outage) -> Self {
        match outage {
            wit::Outage::Unavailable(retry) => Self::Unavailable { after: retry.after_ms.map(wait), reason: retry.reason },
            wit::Outage::Misconfigured(reason) => Self::Misconfigured { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(key: &str, values: Vec<Value>) -> Signal {
        Signal { id: format!("Order:{key}"), key: key.into(), order_key: String::new(), attempt: 2, values }
    }

    #[test]
    fn every_signal_keeps_its_own_id_and_values() {
        let signals =
            [signal("O", vec![Value::Null, Value::Text("a".into())]), signal("", vec![]), signal("é,2", vec![Value::Int64(7)])];
        let lowered = LoweredBatch::new(&signals);
        let lowered = lowered.signals();
        let ids: Vec<&str> = lowered.iter().map(|signal| signal.id).collect();
        assert_eq!(ids, ["Order:O", "Order:", "Order:é,2"]);
        let lengths: Vec<usize> = lowered.iter().map(|signal| signal.values.len()).collect();
        assert_eq!(lengths, [2, 0, 1]);
        assert!(matches!(lowered[2].values, [wit::Value::Int64(7)]));
        assert_eq!(lowered[0].attempt, 2);
    }

    #[test]
    fn an_empty_batch_lowers_to_nothing() {
        assert!(LoweredBatch::new(&[]).signals().is_empty());
    }
}
