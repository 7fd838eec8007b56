//! Counts what a flush has done.
//!
//! Decides nothing. Next: `flusher`, which tells it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Observer;
use signalbus_core::settlement::Settlement;

/// Counters of a flush, shared with the progress display.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicU64,
    pub skipped: AtomicU64,
    pub deferred: AtomicU64,
    pub buried: AtomicU64,
    /// Batches whose claim belonged to another relay by the time they were settled.
    pub fenced: AtomicU64,
}

impl Tally {
    /// Returns the number of signals sent, skipped, deferred or dead-lettered.
    pub fn total(&self) -> u64 {
        [&self.sent, &self.skipped, &self.deferred, &self.buried].iter().map(|counter| counter.load(Relaxed)).sum()
    }
}

impl Observer for Tally {
    fn settled(&self, settlement: &Settlement) {
        let count = |counter: &AtomicU64, number: usize| counter.fetch_add(number as u64, Relaxed);
        count(&self.sent, settlement.sent());
        count(&self.skipped, settlement.skipped);
        count(&self.deferred, settlement.defer.len());
        count(&self.buried, settlement.bury.len());
    }

    fn fenced(&self) {
        self.fenced.fetch_add(1, Relaxed);
    }
}
