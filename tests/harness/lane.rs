//! A signal type as a relay holds it, and short ways to claim and settle.

use signalbus::outbox::{Batch, Claimed, Outbox, Settled, SignalTable, Source, Worker};
use signalbus::settlement::{Burial, Deferral, Settlement};
use std::time::Duration;

use super::database::Database;

/// The signal type "OrderPlaced" of the table `order_placed`.
pub fn orders() -> Source {
    source("order_placed")
}

/// The signal type "OrderPlaced" of another table.
pub fn source(table: &str) -> Source {
    Source { signal: "OrderPlaced".into(), table: table.into(), ..Source::default() }
}

/// The same, in an order.
pub fn ordered(table: &str, order_by: &[&str], order_key: &[&str]) -> Source {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Source { order_by: owned(order_by), order_key: owned(order_key), ..source(table) }
}

/// One relay's view of a signal type, with a position of its own.
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

/// Claims, where there must be something.
pub async fn claim(worker: &mut Worker<'_>, limit: usize) -> Batch {
    match worker.claim(limit, None).await.unwrap() {
        Claimed::Batch(batch) => batch,
        nothing => panic!("nothing to claim: {nothing:?}"),
    }
}

/// Claims, where there must be nothing; when the earliest deferral is due.
pub async fn nothing(worker: &mut Worker<'_>) -> Option<Duration> {
    match worker.claim(100, None).await.unwrap() {
        Claimed::Nothing { due_in, .. } => due_in,
        Claimed::Batch(batch) => panic!("there is something to claim: {:?}", keys(&batch)),
    }
}

pub fn keys(batch: &Batch) -> Vec<String> {
    batch.signals.iter().map(|signal| signal.key.clone()).collect()
}

pub fn attempts(batch: &Batch) -> Vec<u32> {
    batch.signals.iter().map(|signal| signal.attempt).collect()
}

/// Everything was sent.
pub fn sent(batch: &Batch) -> Settlement {
    Settlement { delete: (0..batch.signals.len()).collect(), ..Settlement::default() }
}

/// One of the batch is to be tried again.
pub fn deferred(batch: &Batch, index: usize, delay: Duration) -> Deferral {
    Deferral { index, attempts: batch.signals[index].attempt, delay, reason: "the bus said \"no\"".into() }
}

/// One of the batch can never be sent.
pub fn buried(batch: &Batch, index: usize) -> Burial {
    Burial { index, attempts: batch.signals[index].attempt, reason: "it's broken".into() }
}

pub fn burials(batch: &Batch) -> Settlement {
    let bury = (0..batch.signals.len()).map(|index| buried(batch, index)).collect();
    Settlement { bury, ..Settlement::default() }
}

/// Settles, where the claim must still be ours; how many rows were deleted.
pub async fn settle(worker: &mut Worker<'_>, batch: &Batch, settlement: &Settlement) -> u64 {
    match worker.settle(batch, settlement).await.unwrap() {
        Settled::Done { deleted } => deleted,
        Settled::Fenced => panic!("the claim is another's: {:?}", keys(batch)),
    }
}

/// Claims and settles everything there is, some rows at a time; the keys, in the order they came.
pub async fn drain(worker: &mut Worker<'_>, limit: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while let Claimed::Batch(batch) = worker.claim(limit, None).await.unwrap() {
        assert!(batch.signals.len() <= limit);
        assert_eq!(settle(worker, &batch, &sent(&batch)).await, batch.signals.len() as u64, "{:?}", keys(&batch));
        seen.extend(keys(&batch));
        assert!(seen.len() < 100_000, "the same rows come again and again");
    }
    seen
}

impl Database {
    /// Makes all claims look as if their owners had died.
    pub async fn expire(&self) {
        self.run("UPDATE signalbus_claim SET expires_at = 0").await;
    }

    /// Makes all deferrals due.
    pub async fn make_due(&self) {
        self.run("UPDATE signalbus_deferral SET due_at = 0").await;
    }

    pub async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }
}
