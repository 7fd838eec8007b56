//! Flushing: the path of a signal, from the claim to the settlement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use signalbus_core::settlement::{Policy, Settlement};
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_outbox::{Batch, Claimed, Error, RENEWAL, Settled, SignalTable, Worker};
use signalbus_plugin::Sender;
use signalbus_telemetry as telemetry;

/// How often a flush looks whether another relay has settled its claims.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// One signal type with all that it takes to send it.
pub struct Flusher {
    pub table: SignalTable,
    pub sender: Arc<dyn Sender>,
    pub policy: Policy,
    /// Most signals in one batch.
    pub burst_count: usize,
    /// Batches in flight; 1 where order is promised without an order key.
    pub concurrency: usize,
    pub patience: Patience,
}

/// How long a worker waits for a database that went away in its midst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub claim: Duration,
    /// What is sent should not be sent again.
    pub settle: Duration,
}

impl Patience {
    /// A command that ends waits a minute.
    pub const ONE_SHOT: Self = Self { claim: Duration::from_secs(60), settle: Duration::from_secs(60) };
    /// One that runs for ever has other ways to wait for its next claim.
    pub const FOREVER: Self = Self { claim: Duration::ZERO, settle: Duration::MAX };
}

/// Hears what happens to batches.
pub trait Observer: Send + Sync {
    fn claimed(&self, _: &Batch) {}
    /// A batch can't be settled for now; it will be tried again.
    fn unsettled(&self, _: &Error) {}
    /// What the batch came to, once that is in the database.
    fn settled(&self, _: &Settlement) {}
    /// The claim was another relay's by the time the batch was to be settled.
    fn fenced(&self) {}
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
    /// The plugin fails, whatever it is given.
    Stalled(String),
    Database(Error),
    /// It was told to stop.
    Stopped,
    /// It was told to stop, and could not within the grace period.
    Abandoned,
}

/// What a worker left when it found nothing more to claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// When the earliest deferred signal is due.
    pub due_in: Option<Duration>,
    /// When the last claim of another relay expires, if it is not settled before.
    pub claimed_for: Option<Duration>,
}

impl Flusher {
    /// One worker's part of a flush: until nothing is due, nothing is claimed by other relays,
    /// or `stop` is called. With `boundary`, signals whose key is above it are left alone.
    ///
    /// # Errors
    /// Why it ended early. What was in flight is settled, or can be claimed again.
    pub async fn flush(&self, boundary: Option<&str>, tally: &Tally, stop: &CancellationToken) -> Result<(), Halt> {
        loop {
            match self.work(boundary, tally, stop).await?.claimed_for {
                Some(expiry) => pause(expiry.min(LOOK_AGAIN), stop).await,
                None => return Ok(()),
            }
        }
    }

    /// Claims, sends and settles, batch by batch, until there is nothing to claim or `stop` is
    /// called.
    ///
    /// # Errors
    /// Why it ended early. What was in flight is settled, or can be claimed again.
    pub async fn work(&self, boundary: Option<&str>, observer: &dyn Observer, stop: &CancellationToken) -> Result<Rest, Halt> {
        let mut worker = self.table.session();
        let mut trouble = Trouble::new(self.patience.claim);
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let found = tokio::select! {
                biased;
                found = worker.claim(self.burst_count, boundary) => found,
                () = overdue(stop) => break,
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    trouble.wait(error, stop).await?;
                    continue;
                }
            };
            trouble.over();
            match found {
                Claimed::Batch(batch) => {
                    let claim = telemetry::Claim { signals: batch.signals.len(), late: batch.late, taken_over: batch.taken_over };
                    telemetry::claimed(&self.table.signal_type().name, claim, begun.elapsed());
                    observer.claimed(&batch);
                    self.flush_batch(&mut worker, &batch, observer, stop).await?;
                }
                Claimed::Nothing { due_in, claimed_for } => return Ok(Rest { due_in, claimed_for }),
            }
        }
        Err(Halt::Stopped)
    }

    async fn flush_batch(
        &self,
        worker: &mut Worker<'_>,
        batch: &Batch,
        observer: &dyn Observer,
        stop: &CancellationToken,
    ) -> Result<(), Halt> {
        let begun = Instant::now();
        let verdict = self.send(worker, batch, stop).await;
        let name = &self.table.signal_type().name;
        let settlement = Settlement::from_verdict(&batch.signals, verdict, &self.policy, fastrand::f64);
        telemetry::settling(name, &batch.signals, &settlement, begun.elapsed());
        let begun = Instant::now();
        let settled = self.settle(worker, batch, &settlement, observer).await;
        telemetry::settled(name, begun.elapsed());
        settled?;
        match (settlement.outage, settlement.stalled) {
            (Some(outage), _) => Err(Halt::Outage(outage)),
            // A stop leaves the rest untried, too.
            (None, Some(reason)) if !stop.is_cancelled() => Err(Halt::Stalled(reason)),
            (None, _) => Ok(()),
        }
    }

    /// Runs the plugin, and keeps the claim alive meanwhile.
    async fn send(&self, worker: &mut Worker<'_>, batch: &Batch, stop: &CancellationToken) -> Verdict {
        if batch.suspect {
            let reason = "the relay died twice while it sent this signal";
            return Ok(vec![Outcome::retry(reason); batch.signals.len()]);
        }
        let mut sending = self.sender.send(self.table.signal_type(), &batch.signals, stop);
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
                renewed = &mut renewal => match renewed {
                    Ok(true) => telemetry::renewed(&self.table.signal_type().name),
                    Ok(false) => telemetry::claim_lost(&self.table.signal_type().name),
                    Err(error) => telemetry::database_error(&error, error.kind()),
                },
            }
        }
    }

    /// Settles, however often the database must be asked: what is sent should not be sent again.
    async fn settle(
        &self,
        worker: &mut Worker<'_>,
        batch: &Batch,
        settlement: &Settlement,
        observer: &dyn Observer,
    ) -> Result<(), Halt> {
        let mut trouble = Trouble::new(self.patience.settle);
        let never = CancellationToken::new();
        let settled = loop {
            match worker.settle(batch, settlement).await {
                Ok(settled) => break settled,
                Err(error) => {
                    observer.unsettled(&error);
                    trouble.wait(error, &never).await?;
                }
            }
        };
        let troubled = trouble.since.is_some();
        trouble.over();
        // After a lost connection "fenced" means, as a rule, that the lost commit had come through.
        if settled == Settled::Fenced && !troubled {
            observer.fenced();
            telemetry::fenced(&self.table.signal_type().name, batch.signals.len());
            return Ok(());
        }
        observer.settled(settlement);
        telemetry::tallied(&self.table.signal_type().name, settlement);
        if settlement.delete.len() + settlement.defer.len() + settlement.bury.len() < batch.signals.len() {
            self.table.rescan().await;
        }
        Ok(())
    }
}

impl Tally {
    /// Signals that were dealt with, in whatever way.
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

/// A database that does not answer: for how long already.
struct Trouble {
    patience: Duration,
    since: Option<Instant>,
    tries: u32,
}

impl Trouble {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None, tries: 0 }
    }

    /// Waits a little before the next try, or gives up: at once where the database has refused.
    async fn wait(&mut self, error: Error, stop: &CancellationToken) -> Result<(), Halt> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let hopeless = !(error.is_unreachable() || error.is_passing());
        if hopeless || since.elapsed() > self.patience {
            return Err(Halt::Database(error));
        }
        telemetry::database_error(&error, error.kind());
        self.tries += 1;
        pause(Duration::from_millis(50) * self.tries.min(20), stop).await;
        Ok(())
    }

    fn over(&mut self) {
        if self.since.take().is_some() {
            telemetry::database_recovered();
        }
        self.tries = 0;
    }
}

/// When a claim that was begun before a stop is given up: the network is silent, and what the claim
/// may have taken falls free by itself.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// A wait that a stop cuts short.
pub(crate) async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}
