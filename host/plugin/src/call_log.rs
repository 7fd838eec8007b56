//! What a plugin said and what its calls cost, for those who try it out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

/// Takes down a plugin's log records, in place of the relay's log, and every call.
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
    /// Bytes that the instance held at its end; 0 where it failed.
    pub memory: usize,
    pub failure: Option<Failed>,
    /// Outcomes and signals, where their numbers differ.
    pub wrong_length: Option<(usize, usize)>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `trap`, `deadline`, `memory`, `exit` or `other`, as in the metrics.
    pub kind: &'static str,
    pub reason: String,
    /// The functions that the guest was in, the innermost first; empty where it was not stopped by a trap.
    pub backtrace: String,
}

impl CallLog {
    /// What was entries down since this was last asked.
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

    /// What the instance of the last call holds.
    pub(super) fn memory(&self, bytes: usize) {
        if let Some(call) = self.entries().calls.last_mut() {
            call.memory = bytes;
        }
    }

    /// The last call was answered with so many outcomes for so many signals.
    pub(super) fn wrong_length(&self, outcomes: usize, signals: usize) {
        if let Some(call) = self.entries().calls.last_mut() {
            call.wrong_length = Some((outcomes, signals));
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
