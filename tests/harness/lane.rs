//! A signal type as a relay sees it, and shorthands to claim and settle.

use signalbus::outbox::{Batch, Claimed, Outbox, Settled, SignalTable, Source, Worker};
use signalbus::settlement::{Burial, Deferral, Settlement};
use std::time::Duration;

use super::database::Database;

/// The signal type "OrderPlaced" with the table `order_placed`.
pub fn orders() -> Source {
    source("order_placed")
}

/// The signal type "OrderPlaced" with another table.
pub fn source(table: &str) -> Source {
    Source { signal: "OrderPlaced".into(), table: table.into(), ..Source::default() }
}

/// The same, ordered.
pub fn ordered(table: &str, order_by: &[&str], order_key: &[&str]) -> Source {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Source { order_by: owned(order_by), order_key: owned(order_key), ..source(table) }
}

/// One relay's view of a signal type, with its own position.
pub struct Relay {
    pub outbox: Outbox,
    pub lane: SignalTable,
}

impl Relay {
    pub async fn open(database: &Database, source: &Source) -> Self {
        let outbox = Outbox::open(&database.url, 8).unwrap();
        let lane = outbox.signal_table(source).await.unwrap();
        Self { outbox, lane }
    }

    pub fn worker(&self) -> Worker<'_> {
        self.lane.session()
    }
}

/// Claims a batch; there must be one.
pub async fn claim(worker: &mut Worker<'_>, limit: usize) -> Batch {
    match worker.claim(limit, None).await.unwrap() {
        Claimed::Batch(batch) => batch,
        nothing => panic!("expected a batch: {nothing:?}"),
    }
}

/// Claims a batch of which nothing is heard again, as if its relay had died; returns the keys.
pub async fn lose(worker: &mut Worker<'_>, limit: usize) -> Vec<String> {
    let batch = claim(worker, limit).await;
    let keys = keys(&batch);
    std::mem::forget(batch);
    keys
}

/// Asserts that nothing can be claimed; returns when the earliest deferral is due.
pub async fn nothing(worker: &mut Worker<'_>) -> Option<Duration> {
    match worker.claim(100, None).await.unwrap() {
        Claimed::Nothing { due_in, .. } => due_in,
        Claimed::Batch(batch) => panic!("expected nothing to claim: {:?}", keys(&batch)),
    }
}

pub fn keys(batch: &Batch) -> Vec<String> {
    batch.signals.iter().map(|signal| signal.key.clone()).collect()
}

pub fn attempts(batch: &Batch) -> Vec<u32> {
    batch.signals.iter().map(|signal| signal.attempt).collect()
}

/// The settlement of a batch of which everything was sent.
pub fn sent(batch: &Batch) -> Settlement {
    Settlement { delete: (0..batch.signals.len()).collect(), ..Settlement::default() }
}

/// The deferral of one signal of a batch.
pub fn deferred(batch: &Batch, index: usize, delay: Duration) -> Deferral {
    Deferral { index, attempts: batch.signals[index].attempt, delay, reason: "the bus said \"no\"".into() }
}

/// The burial of one signal of a batch.
pub fn buried(batch: &Batch, index: usize) -> Burial {
    Burial { index, attempts: batch.signals[index].attempt, reason: "it's broken".into() }
}

pub fn burials(batch: &Batch) -> Settlement {
    let bury = (0..batch.signals.len()).map(|index| buried(batch, index)).collect();
    Settlement { bury, ..Settlement::default() }
}

/// Settles a batch whose claim must still be ours; returns the number of deleted rows.
pub async fn settle(worker: &mut Worker<'_>, batch: &Batch, settlement: &Settlement) -> u64 {
    match worker.settle(batch, settlement).await.unwrap() {
        Settled::Done(deletions) => deletions.deleted,
        Settled::Fenced => panic!("the claim was lost: {:?}", keys(batch)),
    }
}

/// Claims and settles everything, up to `limit` rows at a time; returns the keys in order.
pub async fn drain(worker: &mut Worker<'_>, limit: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while let Claimed::Batch(batch) = worker.claim(limit, None).await.unwrap() {
        assert!(batch.signals.len() <= limit);
        assert_eq!(settle(worker, &batch, &sent(&batch)).await, batch.signals.len() as u64, "{:?}", keys(&batch));
        seen.extend(keys(&batch));
        assert!(seen.len() < 100_000, "the same rows are claimed again and again");
    }
    seen
}

impl Database {
    /// Expires all claims, as if their owners had died.
    pub async fn expire(&self) {
        self.run("UPDATE signalbus_claim SET expires_at = 0").await;
    }

    /// Makes all deferrals due.
    pub async fn make_due(&self) {
        self.run("UPDATE signalbus_hold SET due_at = 0 WHERE state = 'retry'").await;
    }

    /// The number of orders that are no dead letters.
    pub async fn waiting(&self) -> i64 {
        let dead = "SELECT count(*) FROM signalbus_hold WHERE state = 'dead'";
        self.number(&format!("SELECT (SELECT count(*) FROM order_placed) - ({dead})")).await
    }

    pub async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }
}
