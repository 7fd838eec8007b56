//! Flushing: the path of a signal, from the claim to the settlement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::outbox::{Batch, Claimed, Error, Lane, RENEWAL, Settled, Worker};
use crate::plugin::Sender;
use crate::settlement::{Policy, Settlement};
use crate::signal::{Outage, Outcome, Verdict};
use crate::telemetry;

/// How long a flush waits for a database that went away in its midst.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a flush looks whether another relay has settled its claims.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One signal type with all that it takes to send it.
pub struct Flusher {
    pub lane: Lane,
    pub sender: Arc<dyn Sender>,
    pub policy: Policy,
    /// Most signals in one batch.
    pub burst_count: usize,
    /// Batches in flight; 1 where order is promised without an order key.
    pub concurrency: usize,
}

/// What has happened so far; shared with whoever shows the progress.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicU64,
    pub skipped: AtomicU64,
    pub deferred: AtomicU64,
    pub buried: AtomicU64,
    /// Batches whose claim was another relay's by the time they were settled.
    pub fenced: AtomicU64,
}

/// Why a flush ended before everything was sent.
#[derive(Debug)]
pub enum Halt {
    /// The bus, or the plugin's configuration.
    Outage(Outage),
    Database(Error),
    /// It was told to stop.
    Stopped,
    /// It was told to stop, and could not within the grace period.
    Abandoned,
}

impl Flusher {
    /// One worker's part of a flush: until nothing is due, nothing is claimed by other relays,
    /// or `stop` is called. With `boundary`, signals whose key is above it are left alone.
    ///
    /// # Errors
    /// Why it ended early. What was in flight is settled, or can be claimed again.
    pub async fn flush(&self, boundary: Option<&str>, tally: &Tally, stop: &CancellationToken) -> Result<(), Halt> {
        let mut worker = self.lane.session();
        let mut trouble = Trouble::default();
        while !stop.is_cancelled() {
            let claimed = match worker.claim(self.burst_count, boundary).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    trouble.wait(error, stop).await?;
                    continue;
                }
            };
            trouble = Trouble::default();
            match claimed {
                Claimed::Batch(batch) => self.flush_batch(&mut worker, &batch, tally).await?,
                Claimed::Nothing { claimed_for: Some(expiry), .. } => pause(expiry.min(LOOK_AGAIN), stop).await,
                Claimed::Nothing { claimed_for: None, .. } => return Ok(()),
            }
        }
        Err(Halt::Stopped)
    }

    async fn flush_batch(&self, worker: &mut Worker<'_>, batch: &Batch, tally: &Tally) -> Result<(), Halt> {
        let verdict = self.send(worker, batch).await;
        let settlement = Settlement::of(&batch.signals, verdict, &self.policy, fastrand::f64);
        telemetry::settling(&self.lane.signal_type().name, batch, &settlement);
        self.settle(worker, batch, &settlement, tally).await?;
        match settlement.outage {
            Some(outage) => Err(Halt::Outage(outage)),
            None => Ok(()),
        }
    }

    /// Runs the plugin, and keeps the claim alive meanwhile.
    async fn send(&self, worker: &mut Worker<'_>, batch: &Batch) -> Verdict {
        if batch.suspect {
            let reason = "the relay died twice while it sent this signal";
            return Ok(vec![Outcome::retry(reason); batch.signals.len()]);
        }
        let mut sending = self.sender.send(self.lane.signal_type(), &batch.signals);
        loop {
            tokio::select! {
                biased;
                verdict = &mut sending => return verdict,
                () = tokio::time::sleep(RENEWAL) => {}
            }
            // The plugin runs on while the claim is renewed; a lost claim is noticed at the settle.
            let renewal = worker.renew(batch);
            tokio::pin!(renewal);
            tokio::select! {
                verdict = &mut sending => {
                    let _ = renewal.await;
                    return verdict;
                }
                renewed = &mut renewal => telemetry::renewed(&self.lane.signal_type().name, renewed),
            }
        }
    }

    /// Settles, however often the database must be asked: what is sent should not be sent again.
    async fn settle(&self, worker: &mut Worker<'_>, batch: &Batch, settlement: &Settlement, tally: &Tally) -> Result<(), Halt> {
        let mut trouble = Trouble::default();
        let never = CancellationToken::new();
        let settled = loop {
            match worker.settle(batch, settlement).await {
                Ok(settled) => break settled,
                Err(error) => trouble.wait(error, &never).await?,
            }
        };
        // After a lost connection "fenced" means, as a rule, that the lost commit had come through.
        if settled == Settled::Fenced && trouble.since.is_none() {
            tally.fenced.fetch_add(1, Relaxed);
            telemetry::fenced(&self.lane.signal_type().name, batch);
            return Ok(());
        }
        tally.add(settlement);
        if settlement.delete.len() + settlement.defer.len() + settlement.bury.len() < batch.signals.len() {
            self.lane.rescan().await;
        }
        Ok(())
    }
}

impl Tally {
    /// Signals that were dealt with, in whatever way.
    pub fn settled(&self) -> u64 {
        [&self.sent, &self.skipped, &self.deferred, &self.buried].iter().map(|counter| counter.load(Relaxed)).sum()
    }

    fn add(&self, settlement: &Settlement) {
        let count = |counter: &AtomicU64, number: usize| counter.fetch_add(number as u64, Relaxed);
        count(&self.sent, settlement.sent());
        count(&self.skipped, settlement.skipped);
        count(&self.deferred, settlement.defer.len());
        count(&self.buried, settlement.bury.len());
    }
}

/// A database that does not answer: for how long already.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    tries: u32,
}

impl Trouble {
    /// Waits a little before the next try, or gives up: at once where the database has refused.
    async fn wait(&mut self, error: Error, stop: &CancellationToken) -> Result<(), Halt> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let hopeless = !(error.is_unreachable() || error.is_passing());
        if hopeless || since.elapsed() > PATIENCE {
            return Err(Halt::Database(error));
        }
        if self.tries == 0 {
            telemetry::database_trouble(&error);
        }
        self.tries += 1;
        pause(Duration::from_millis(50) * self.tries.min(20), stop).await;
        Ok(())
    }
}

/// A wait that a stop cuts short.
async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}
