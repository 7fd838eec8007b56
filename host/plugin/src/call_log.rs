//! Records a plugin's log output and the cost of its calls, for `plugin test` and `plugin replay`.
//!
//! A relay in production has no call log: `logs` then writes to the relay's log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

/// Collects a plugin's calls, and its log records, which then stay out of the relay's log.
#[derive(Debug, Default)]
pub struct CallLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    records: Vec<Record>,
    calls: Vec<Call>,
}

/// A log record, or a line of standard output or standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub level: Level,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// One call of a plugin, instantiation included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub time: Duration,
    /// Bytes that the instance held at the end of the call; 0 if the call failed.
    pub memory: usize,
    pub failure: Option<Failed>,
    /// The numbers of outcomes and of signals, if they differ.
    pub wrong_length: Option<(usize, usize)>,
    /// The id of a signal that was sent behind one of its run that was not.
    pub out_of_order: Option<String>,
}

/// Why a call ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `trap`, `deadline`, `memory`, `exit` or `other`, as in the metrics.
    pub kind: &'static str,
    pub reason: String,
    /// The guest's stack, innermost function first; empty unless a trap stopped it.
    pub backtrace: String,
}

impl CallLog {
    /// Takes the records and calls since the last `take`.
    pub fn take(&self) -> (Vec<Record>, Vec<Call>) {
        let entries = std::mem::take(&mut *self.entries());
        (entries.records, entries.calls)
    }

    pub(super) fn record(&self, record: Record) {
        self.entries().records.push(record);
    }

    pub(super) fn call(&self, call: Call) {
        self.entries().calls.push(call);
    }

    /// Sets the memory of the last call's instance.
    pub(super) fn memory(&self, bytes: usize) {
        if let Some(call) = self.entries().calls.last_mut() {
            call.memory = bytes;
        }
    }

    /// Notes that the last call returned the wrong number of outcomes.
    pub(super) fn wrong_length(&self, outcomes: usize, signals: usize) {
        if let Some(call) = self.entries().calls.last_mut() {
            call.wrong_length = Some((outcomes, signals));
        }
    }

    /// Notes that the last call sent this signal behind one that it did not send.
    pub(super) fn out_of_order(&self, id: &str) {
        if let Some(call) = self.entries().calls.last_mut() {
            call.out_of_order = Some(id.to_owned());
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
