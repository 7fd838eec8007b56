//! Flushing: the path of a signal from the claim through the plugin to the settlement.
//!
//! Decides nothing about rows itself, and never treats an unknown answer as success: that is for
//! `signalbus_core::settlement`. Next: `runner`, which starts a running relay's workers.

mod retry;
mod tally;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::{ClaimSession, Claims};
use signalbus_core::settlement::{Policy, Settlement};
use signalbus_core::signal::{Outage, Outcome, Signal, Verdict};
use signalbus_outbox::{Ahead, Batch, Claimed, Error, FRESH, LEASE, RENEWAL, Settled, SignalTable};
use signalbus_plugin::{Sender, Sending};
use signalbus_telemetry as telemetry;

use retry::DatabaseRetry;
pub use tally::Tally;

/// How often a flush checks whether another relay has settled its claims.
const RECHECK: Duration = Duration::from_millis(200);

/// So many rows of a batch that cannot be deleted, and none that can, have one cause.
const HOPELESS: usize = 16;

/// A claim of an ordered type covers what is sent within this time, and at most so many batches.
const SPAN: Duration = Duration::from_millis(40);
const MOST_BATCHES: u32 = 8;

/// How long a worker that ends waits for a silent database.
const PATIENCE: Duration = Duration::from_secs(5);

/// A signal type and everything needed to send it.
pub struct Flusher<T = SignalTable> {
    pub table: T,
    pub sender: Arc<dyn Sender>,
    pub policy: Policy,
    /// Maximum batch size, in signals.
    pub burst_count: usize,
    /// 1 for an ordered type without an order key.
    pub concurrency: Concurrency,
    pub patience: Patience,
}

/// How many batches of a type may be in flight.
#[derive(Debug)]
pub struct Concurrency {
    pub most: usize,
    places: Semaphore,
}

impl From<usize> for Concurrency {
    fn from(most: usize) -> Self {
        Self { most, places: Semaphore::new(most) }
    }
}

/// How long a worker keeps retrying while the database is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub claim: Duration,
    /// Giving up a settle sends the batch again.
    pub settle: Duration,
}

impl Patience {
    /// For commands that end: one minute.
    pub const ONE_SHOT: Self = Self { claim: Duration::from_secs(60), settle: Duration::from_secs(60) };
    /// For a running relay: it retries a settle indefinitely, and pauses the type instead of retrying a claim.
    pub const FOREVER: Self = Self { claim: Duration::ZERO, settle: Duration::MAX };
}

/// Receives batch lifecycle events.
pub trait Observer: Send + Sync {
    fn claimed(&self, _: &Batch) {}
    /// A settle failed and may be retried.
    fn unsettled(&self, _: &Error) {}
    /// The settlement was committed.
    fn settled(&self, _: &Settlement) {}
    /// The claim belonged to another relay by the time of the settle.
    fn fenced(&self) {}
}

/// Why a flush or a worker ended early.
#[derive(Debug)]
pub enum Halt {
    /// The bus is unreachable, or the plugin is misconfigured.
    Outage(Outage),
    /// The plugin fails for every signal.
    Stalled(String),
    Database(Error),
    /// It was stopped.
    Stopped,
    /// It was stopped, and did not finish within the grace period.
    Abandoned,
}

/// What a worker was asked for.
#[derive(Clone, Copy)]
struct Run<'a> {
    boundary: Option<&'a str>,
    observer: &'a dyn Observer,
    stop: &'a CancellationToken,
}

/// What became of the batches that were sent.
struct Flushed {
    lanes: u32,
    /// How long the last one of a lane was sent.
    took: Duration,
    /// All of them were sent and settled, and none has changed: what follows in the order may be sent.
    complete: bool,
}

impl Flushed {
    fn incomplete(took: Duration) -> Self {
        Self { lanes: 1, took, complete: false }
    }
}

/// When there may be something to claim again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextWork {
    /// Time until the earliest deferred signal is due.
    pub due_in: Option<Duration>,
    /// Time until the last claim of another relay expires, if it is not settled before.
    pub claimed_for: Option<Duration>,
}

impl<T: Claims> Flusher<T> {
    /// Runs one worker of a flush until nothing is due and nothing is claimed by other relays, or until
    /// `stop` is cancelled. With `boundary`, signals with a higher key are left alone.
    ///
    /// # Errors
    /// Why it ended early. What was in flight is settled, or can be claimed again.
    pub async fn flush(&self, boundary: Option<&str>, tally: &Tally, stop: &CancellationToken) -> Result<(), Halt> {
        loop {
            match self.work(boundary, tally, stop).await?.claimed_for {
                Some(expiry) => pause(expiry.min(RECHECK), stop).await,
                None => return Ok(()),
            }
        }
    }

    /// Claims, sends and settles batch by batch until there is nothing to claim or `stop` is
    /// cancelled.
    ///
    /// # Errors
    /// Why it ended early. What was in flight is settled, or can be claimed again.
    pub async fn work(
        &self,
        boundary: Option<&str>,
        observer: &dyn Observer,
        stop: &CancellationToken,
    ) -> Result<NextWork, Halt> {
        let mut worker = self.table.session();
        let ended = self.work_on(&mut *worker, Run { boundary, observer, stop }).await;
        // What it claimed and did not read is given back; a silent network may keep it for the length of a lease.
        if ended.is_err()
            && let Ok(Err(error)) = tokio::time::timeout(PATIENCE, worker.close()).await
        {
            telemetry::database_error(&error, error.kind());
        }
        ended
    }

    async fn work_on(&self, worker: &mut dyn ClaimSession, run: Run<'_>) -> Result<NextWork, Halt> {
        let Run { boundary, observer, stop } = run;
        let mut retry = DatabaseRetry::new(self.patience.claim);
        let mut batches = 1;
        while !stop.is_cancelled() {
            worker.cover(batches as usize);
            let begun = Instant::now();
            let found = tokio::select! {
                biased;
                found = worker.claim(self.burst_count, boundary) => found,
                () = overdue(stop) => break,
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    retry.wait(error, stop).await?;
                    continue;
                }
            };
            retry.succeeded();
            match found {
                Claimed::Batch(batch) => {
                    self.claimed(&batch, begun, observer);
                    self.flush_claimed(worker, batch, &mut batches, run).await?;
                }
                Claimed::Nothing { due_in, claimed_for } => return Ok(NextWork { due_in, claimed_for }),
            }
        }
        Err(Halt::Stopped)
    }

    fn claimed(&self, batch: &Batch, begun: Instant, observer: &dyn Observer) {
        let claim = telemetry::Claim { signals: batch.signals.len(), late: batch.late, taken_over: batch.taken_over };
        telemetry::claimed(&self.table.signal_type().name, claim, begun.elapsed());
        observer.claimed(batch);
    }

    /// Sends and settles what was claimed, and what follows it in the order: that is claimed meanwhile. `batches` are how many
    /// to claim at once.
    async fn flush_claimed(
        &self,
        worker: &mut dyn ClaimSession,
        mut claimed: Batch,
        batches: &mut u32,
        run: Run<'_>,
    ) -> Result<(), Halt> {
        let mut second = None;
        loop {
            let (flushed, next) = match worker.ahead(&claimed) {
                Some(ahead) => {
                    let second = second.get_or_insert_with(|| self.table.session());
                    second.cover(*batches as usize);
                    join(self.flush_lanes(worker, claimed, run), self.claim_ahead(&mut **second, ahead, run)).await
                }
                None => (self.flush_lanes(worker, claimed, run).await, None),
            };
            if let Ok(Flushed { lanes, took, .. }) = flushed {
                *batches = (within(SPAN, took) * lanes).min(2 * *batches).clamp(1, MOST_BATCHES * lanes);
            }
            let Some(next) = next else { return flushed.map(drop) };
            if !flushed.as_ref().is_ok_and(|flushed| flushed.complete) || run.stop.is_cancelled() {
                if let Err(error) = worker.give_back(&next).await {
                    telemetry::database_error(&error, error.kind());
                }
                return flushed.map(drop);
            }
            if next.is_doubtful() && !worker.renew(&next).await.unwrap_or(false) {
                telemetry::claim_lost(&self.table.signal_type().name);
                return Ok(());
            }
            claimed = next;
        }
    }

    async fn claim_ahead(&self, worker: &mut dyn ClaimSession, ahead: Ahead, run: Run<'_>) -> Option<Batch> {
        let begun = Instant::now();
        let next = tokio::select! {
            biased;
            next = worker.claim_ahead(ahead, self.burst_count, run.boundary) => next,
            () = overdue(run.stop) => return None,
        };
        let next = next.inspect_err(|error| telemetry::database_error(error, error.kind())).ok()?;
        next.inspect(|batch| self.claimed(batch, begun, run.observer))
    }

    /// Sends and settles lanes of batches, which have no order key in common, all at once.
    async fn flush_lanes(&self, worker: &mut dyn ClaimSession, claimed: Batch, run: Run<'_>) -> Result<Flushed, Halt> {
        let mut lanes = claimed.split(self.burst_count, self.concurrency.most);
        let (own, more) = (lanes.pop().unwrap_or_default(), lanes);
        let lanes = u32::try_from(more.len() + 1).unwrap_or(u32::MAX);
        let more = more.into_iter().map(async |lane| {
            let mut session = self.table.session();
            self.flush_lane(&mut *session, lane, run).await
        });
        let (own, more) = join(self.flush_lane(worker, own, run), join_all(more)).await;
        let mut flushed = Flushed { lanes, ..own? };
        for lane in more {
            let Flushed { took, complete, .. } = lane?;
            flushed = Flushed { took: took.max(flushed.took), complete: complete && flushed.complete, lanes };
        }
        Ok(flushed)
    }

    /// Sends and settles one batch after the other. While one is settled, the next is sent already, unless something of the
    /// first stays.
    async fn flush_lane(
        &self,
        worker: &mut dyn ClaimSession,
        mut batches: VecDeque<Batch>,
        run: Run<'_>,
    ) -> Result<Flushed, Halt> {
        let Run { observer, stop, .. } = run;
        let name = &self.table.signal_type().name;
        let mut lease = Instant::now();
        let mut before: Option<(Batch, Settlement)> = None;
        let mut took = Duration::ZERO;
        let (mut changed, mut complete) = (false, false);
        let mut hopeless = None;
        while let Some(batch) = batches.pop_front() {
            let begun = Instant::now();
            let mut sending = self.send(&batch, stop);
            if let Some((before, settlement)) = before.take() {
                let settling = self.settle(worker, &before, &settlement, observer);
                sending = match self.settle_meanwhile(settling, sending, lease).await? {
                    Meanwhile::Settled(sending, changes, halt) => {
                        (changed, hopeless) = (changed || changes, halt);
                        sending
                    }
                    Meanwhile::Lost => return Ok(Flushed::incomplete(took)),
                };
            }
            let Some(verdict) = self.keep(worker, &batch, sending, &mut lease).await else {
                // Whoever has the claim goes on with it.
                observer.fenced();
                telemetry::fenced(name, batch.signals.len());
                return Ok(Flushed::incomplete(took));
            };
            took = begun.elapsed();
            let settlement = Settlement::from_verdict(&batch.signals, verdict, &self.policy, fastrand::f64);
            telemetry::settling(name, &batch.signals, &settlement, took);
            let goes = settlement.delete.len() == batch.signals.len() && hopeless.is_none() && !stop.is_cancelled();
            if goes && !batches.is_empty() {
                before = Some((batch, settlement));
                continue;
            }
            batch.leave(batches.len());
            batches.clear();
            let (settled, halt) = self.settle(worker, &batch, &settlement, observer).await?;
            // (What has changed comes next, as it is now.)
            complete = goes && !changed && matches!(settled, Settled::Done(deletions) if deletions.changed == 0);
            if let Some(halt) = hopeless.take().or(halt) {
                return Err(halt);
            }
            match (settlement.outage, settlement.stalled) {
                (Some(outage), _) => return Err(Halt::Outage(outage)),
                // A stop leaves signals untried, too: that is not a stall.
                (None, Some(reason)) if !stop.is_cancelled() => return Err(Halt::Stalled(reason)),
                (None, _) => {}
            }
        }
        Ok(Flushed { lanes: 1, took, complete })
    }

    /// Settles one batch while the next is sent. If the claim may be lost, the call is cancelled.
    async fn settle_meanwhile<'a>(
        &self,
        settling: impl Future<Output = Result<(Settled, Option<Halt>), Halt>>,
        mut sending: Sending<'a>,
        lease: Instant,
    ) -> Result<Meanwhile<'a>, Halt> {
        tokio::pin!(settling);
        let mut late = false;
        let settled = tokio::select! {
            biased;
            settled = &mut settling => settled,
            () = tokio::time::sleep_until(lease + LEASE - FRESH) => {
                late = true;
                drop(std::mem::replace(&mut sending, Box::pin(std::future::pending())));
                settling.await
            }
            verdict = &mut sending => {
                sending = Box::pin(std::future::ready(verdict));
                settling.await
            }
        };
        Ok(match settled? {
            (Settled::Done(deletions), halt) if !late => Meanwhile::Settled(sending, deletions.changed > 0, halt),
            (settled, _) => {
                if settled != Settled::Fenced {
                    telemetry::claim_lost(&self.table.signal_type().name);
                }
                Meanwhile::Lost
            }
        })
    }

    /// Waits for a call, and renews the claim meanwhile. Returns `None` if the claim is lost, or could not be renewed in
    /// time: then the call is cancelled, and nothing more is sent.
    async fn keep(
        &self,
        worker: &mut dyn ClaimSession,
        batch: &Batch,
        mut sending: Sending<'_>,
        renewed: &mut Instant,
    ) -> Option<Verdict> {
        let name = &self.table.signal_type().name;
        let mut due = RENEWAL;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(*renewed + due) => {}
                verdict = &mut sending => return Some(verdict),
            }
            let begun = Instant::now();
            let mut renewal = worker.renew(batch);
            let answer = tokio::select! {
                biased;
                // A relay that was frozen finds itself here. (Its claim was not quite new.)
                () = tokio::time::sleep_until(*renewed + LEASE - FRESH) => Ok(false),
                answer = &mut renewal => answer,
                verdict = &mut sending => {
                    let _ = renewal.await;
                    return Some(verdict);
                }
            };
            match answer {
                Ok(true) => {
                    telemetry::renewed(name);
                    (*renewed, due) = (begun, RENEWAL);
                }
                Ok(false) => {
                    telemetry::claim_lost(name);
                    return None;
                }
                Err(error) => {
                    telemetry::database_error(&error, error.kind());
                    due = renewed.elapsed() + RENEWAL;
                }
            }
        }
    }

    /// Calls the plugin with what could be decoded of a batch and is not held back, and rejects what is broken.
    fn send<'a>(&'a self, batch: &'a Batch, stop: &'a CancellationToken) -> Sending<'a> {
        let signal_type = self.table.signal_type();
        if batch.suspect {
            let reason = "the relay died twice while sending this signal";
            return Box::pin(std::future::ready(Ok(vec![Outcome::retry(reason); batch.signals.len()])));
        }
        Box::pin(async move {
            // (More lanes may be in flight than workers.)
            let _place = self.concurrency.places.acquire().await;
            if batch.broken.is_empty() {
                return self.sender.send(signal_type, &batch.signals, stop).await;
            }
            let positions = batch.sendable(self.policy.holds_dead);
            let signals: Vec<Signal> = positions.iter().map(|&position| batch.signals[position].clone()).collect();
            let verdict = match positions.is_empty() {
                true => Ok(Vec::new()),
                false => self.sender.send(signal_type, &signals, stop).await,
            };
            verdict.map(|sent| {
                let sent = match sent.len() == positions.len() {
                    true => sent,
                    false => signalbus_core::settlement::wrong_length(positions.len(), sent.len()),
                };
                let mut outcomes = vec![Outcome::Held; batch.signals.len()];
                positions.into_iter().zip(sent).for_each(|(position, outcome)| outcomes[position] = outcome);
                for (position, reason) in &batch.broken {
                    outcomes[*position] = Outcome::Reject { reason: reason.clone() };
                }
                outcomes
            })
        })
    }

    /// Settles the batch, retrying while the database is unreachable: giving up sends the batch again. Returns with it why
    /// nothing more is to be sent, if nothing of it can be deleted.
    async fn settle(
        &self,
        worker: &mut dyn ClaimSession,
        batch: &Batch,
        settlement: &Settlement,
        observer: &dyn Observer,
    ) -> Result<(Settled, Option<Halt>), Halt> {
        let begun = Instant::now();
        let mut retry = DatabaseRetry::new(self.patience.settle);
        let never = CancellationToken::new();
        let settled = loop {
            match worker.settle(batch, settlement).await {
                Ok(settled) => break settled,
                Err(error) => {
                    observer.unsettled(&error);
                    retry.wait(error, &never).await?;
                }
            }
        };
        let retried = retry.since.is_some();
        retry.succeeded();
        // After a lost connection, "fenced" usually means that the commit had succeeded after all.
        let name = &self.table.signal_type().name;
        telemetry::settled(name, begun.elapsed());
        if settled == Settled::Fenced && !retried {
            observer.fenced();
            telemetry::fenced(name, batch.signals.len());
            return Ok((settled, None));
        }
        observer.settled(settlement);
        telemetry::tallied(name, settlement);
        let Settled::Done(deletions) = &settled else { return Ok((settled, None)) };
        if deletions.changed > 0 {
            telemetry::changed(name, deletions.changed);
        }
        let left = settlement.delete.len() + settlement.defer.len() + settlement.bury.len() < batch.signals.len();
        if deletions.changed > 0 || left {
            self.table.rescan().await;
        }
        let halt = match &deletions.reason {
            None => None,
            // One cause for all: it is to be mended before more is sent.
            Some(reason) if deletions.deleted == 0 && deletions.refused >= HOPELESS => {
                Some(Halt::Database(Error::Table(format!("nothing that was sent can be deleted: {reason}"))))
            }
            Some(reason) => {
                telemetry::undeleted(name, deletions.locked + deletions.refused, reason);
                None
            }
        };
        Ok((settled, halt))
    }
}

/// What became of a batch that was settled while the next was sent.
enum Meanwhile<'a> {
    /// The call goes on. With it whether rows of the batch were changed and stay, and why nothing more is to be sent, if
    /// nothing of the batch can be deleted.
    Settled(Sending<'a>, bool, Option<Halt>),
    /// The claim is lost, or may be: the call was cancelled.
    Lost,
}

/// How many times so long fits into a time.
fn within(time: Duration, long: Duration) -> u32 {
    u32::try_from(time.as_micros() / long.as_micros().max(1)).unwrap_or(u32::MAX)
}

/// Completes when a claim that began before a stop is to be given up: the network is silent, and the
/// claim, if it was taken, expires by itself.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(PATIENCE).await;
}

/// Sleeps for `duration`, or until `stop` is cancelled.
pub(crate) async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}

#[cfg(test)]
mod tests;
