//! The runner of one signal type: starts workers when it is woken, and pauses the type after failures.
//!
//! A worker ends when nothing is due. A failure never reaches another signal type, and every wait ends
//! with the stop. Next: `flusher`, what a worker does; `watcher`, which wakes the runner.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::LastActivity;
use crate::config::SignalConfig;
use crate::flusher::{Flusher, Halt, NextWork, Observer, Tally};
use crate::ports::{Claims, LoadedPlugin};
use signalbus_core::backoff::Backoff;
use signalbus_core::settlement::Settlement;
use signalbus_core::signal::Outage;
use signalbus_outbox::{Batch, Error, SignalTable};
use signalbus_plugin::Generations;
use signalbus_telemetry as telemetry;

/// Runs one signal type of a running relay.
pub(super) struct SignalRunner<T = SignalTable, P = Generations> {
    pub(super) config: SignalConfig,
    pub(super) flusher: Flusher<T>,
    pub(super) generations: Arc<P>,
    pub(super) tally: Tally,
    /// Stops this signal type only.
    pub(super) stop: CancellationToken,
    /// Cancelled once the runner has stopped and everything in flight is settled.
    pub(super) ended: CancellationToken,
    wake_up: Notify,
    /// Its table was altered: it is to be opened again.
    altered: AtomicBool,
    workers: AtomicUsize,
    condition: Mutex<Condition>,
    activity: Arc<LastActivity>,
}

/// The running signal types, by name.
pub(super) struct Runners<T = SignalTable, P = Generations>(RwLock<BTreeMap<String, Arc<SignalRunner<T, P>>>>);

impl<T, P> Default for Runners<T, P> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Claims, P: LoadedPlugin> Runners<T, P> {
    pub(super) fn all(&self) -> Vec<Arc<SignalRunner<T, P>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<SignalRunner<T, P>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn put(&self, runner: Arc<SignalRunner<T, P>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(runner.name().to_owned(), runner);
    }

    pub(super) fn remove(&self, name: &str) -> Option<Arc<SignalRunner<T, P>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

/// The state of a signal type, apart from its counters.
#[derive(Debug, Default)]
struct Condition {
    pause: Option<Pause>,
    /// Consecutive pauses.
    pauses: u32,
    /// Why the last settle failed, until one succeeds.
    unsettled: Option<String>,
    /// Consecutive batches of which nothing was sent.
    failed_batches: u32,
    last_failure: String,
    /// Consecutive workers that found nothing to claim.
    idle_workers: u32,
    /// Until then, the watcher does not poll from the start of the table.
    thorough_after: Option<Instant>,
}

/// Claims are suspended until `until`.
#[derive(Clone, Debug)]
struct Pause {
    until: Instant,
    reason: String,
}

/// The health of a signal type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    /// Claims are suspended until the next try.
    Paused {
        reason: String,
    },
    /// Others have what it needs to send.
    Waiting {
        reason: String,
    },
    /// Batches are claimed, but nothing is sent.
    Failing {
        reason: String,
    },
}

/// Consecutive batches without a sent signal after which a type counts as failing.
const FAILING_AFTER: u32 = 3;
/// Pause after a misconfiguration; a plugin swap or a configuration reload ends it early.
const MISCONFIGURED_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that a plugin may ask for in an outage.
const OUTAGE_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Minimum time between thorough polls while batches are in flight: their rows look like pending ones.
const THOROUGH_WHILE_BUSY: Duration = Duration::from_secs(1);
/// Maximum time without thorough polls because workers found only rows claimed by others.
const MAX_IDLE_BACKOFF: Duration = Duration::from_millis(250);

impl<T: Claims, P: LoadedPlugin> SignalRunner<T, P> {
    pub(super) fn new(
        config: SignalConfig,
        (flusher, generations): (Flusher<T>, Arc<P>),
        activity: Arc<LastActivity>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            config,
            flusher,
            generations,
            tally: Tally::default(),
            stop,
            ended: CancellationToken::new(),
            wake_up: Notify::new(),
            altered: AtomicBool::new(false),
            workers: AtomicUsize::new(0),
            condition: Mutex::default(),
            activity,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.config.name()
    }

    /// Wakes the runner: there may be something to send.
    pub(super) fn wake(&self, source: &'static str) {
        telemetry::woken(source);
        self.wake_up.notify_one();
    }

    /// Ends a pause early: its cause may have been fixed.
    pub(super) fn resume(&self) {
        let mut condition = self.condition();
        condition.pause = None;
        condition.failed_batches = 0;
        drop(condition);
        self.wake("call");
    }

    /// Whether its table was altered since it was opened; `true` once.
    pub(super) fn take_altered(&self) -> bool {
        self.altered.swap(false, Relaxed)
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.load(Relaxed)
    }

    pub(super) fn health(&self) -> Health {
        let condition = self.condition();
        match &condition.pause {
            Some(pause) => Health::Paused { reason: pause.reason.clone() },
            None if condition.unsettled.is_some() => Health::Paused { reason: condition.unsettled.clone().unwrap_or_default() },
            None if condition.pauses > 0 => Health::Paused { reason: condition.last_failure.clone() },
            None if condition.failed_batches >= FAILING_AFTER => Health::Failing { reason: condition.last_failure.clone() },
            None => self.generations.shortage().map_or(Health::Healthy, |reason| Health::Waiting { reason }),
        }
    }

    /// Returns whether the watcher should poll this type from the start of its table (`true`) or from the
    /// scan's position (`false`), or `None` to skip it. `last` is the time of the last thorough poll.
    pub(super) fn view(&self, last: Option<Instant>) -> Option<bool> {
        let condition = self.condition();
        if condition.pause.is_some() {
            return None;
        }
        let busy = self.workers() > 0;
        let recent = last.is_some_and(|last| last.elapsed() < THOROUGH_WHILE_BUSY);
        let backing_off = condition.thorough_after.is_some_and(|after| after > Instant::now());
        let thorough = !(backing_off || busy && recent);
        // An ordered type is always polled from the start.
        let ordered = self.flusher.policy.ordered;
        (thorough || !ordered).then_some(thorough)
    }

    /// Sends signals as they become due until stopped, then waits until everything in flight is settled.
    pub(super) async fn run(self: Arc<Self>) {
        let mut workers = JoinSet::new();
        let mut woken = true;
        let mut timer: Option<Instant> = None;
        while !self.stop.is_cancelled() {
            let pause = self.condition().pause.as_ref().map(|pause| pause.until);
            if woken && pause.is_none() && workers.len() < self.flusher.concurrency.most {
                woken = false;
                workers.spawn(self.clone().work());
                self.workers.store(workers.len(), Relaxed);
            }
            let alarm = pause.or(timer);
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.wake_up.notified() => woken = true,
                Some(ended) = workers.join_next() => {
                    self.workers.store(workers.len(), Relaxed);
                    if let Some(next) = self.after(ended) {
                        timer = self.next_timer(next);
                    }
                }
                () = sleep_until(alarm), if alarm.is_some() => {
                    telemetry::woken("timer");
                    woken = true;
                    (timer, self.condition().pause) = (None, None);
                }
            }
        }
        while workers.join_next().await.is_some() {
            self.workers.store(workers.len(), Relaxed);
        }
        self.ended.cancel();
    }

    async fn work(self: Arc<Self>) -> Result<NextWork, Halt> {
        let sent_before = self.tally.total();
        let ended = self.flusher.work(None, &*self, &self.stop).await;
        let mut condition = self.condition();
        if ended.is_ok() && self.tally.total() == sent_before {
            condition.idle_workers = condition.idle_workers.saturating_add(1);
            let wait = Duration::from_millis(5 << condition.idle_workers.min(6)).min(MAX_IDLE_BACKOFF);
            condition.thorough_after = Some(Instant::now() + wait);
        }
        ended
    }

    /// Returns when to look for work again without being woken.
    fn next_timer(&self, next: NextWork) -> Option<Instant> {
        if next.due_in.is_none() {
            self.condition().failed_batches = 0;
        }
        let times = [next.due_in, next.claimed_for.map(|expiry| expiry + Duration::from_millis(10))];
        times.into_iter().flatten().min().map(|wait| Instant::now() + wait)
    }

    /// Handles the end of a worker: pauses or resumes the type.
    fn after(&self, ended: Result<Result<NextWork, Halt>, JoinError>) -> Option<NextWork> {
        let halt = match ended {
            Ok(Ok(next)) => {
                // While another worker is busy, finding nothing does not mean that the type has recovered.
                if self.workers() == 0 && self.condition().pause.is_none() {
                    self.recovered();
                }
                return Some(next);
            }
            Ok(Err(halt)) => halt,
            Err(panic) => {
                self.pause(Duration::from_secs(30), format!("a worker panicked: {panic}"));
                return None;
            }
        };
        match halt {
            Halt::Outage(Outage::Unavailable { reason, after }) => {
                // A plugin may know when the bus is back, but not stop asking it, nor ask it for ever.
                let wait = after.map_or_else(|| self.backoff(1000, 3), |after| after.min(OUTAGE_PAUSE).max(self.backoff(100, 3)));
                self.pause(wait, format!("the bus is not available: {reason}"));
            }
            Halt::Outage(Outage::Misconfigured { reason }) => {
                // The previous generation may work with this configuration.
                let wait = if self.generations.take_rolled_back() { Duration::ZERO } else { MISCONFIGURED_PAUSE };
                self.pause(wait, format!("the plugin is misconfigured: {reason}"));
            }
            Halt::Stalled(reason) => {
                let wait = if self.generations.take_rolled_back() { Duration::ZERO } else { self.backoff(1000, 60) };
                self.pause(wait, format!("the plugin fails: {reason}"));
            }
            Halt::Database(error) if error.is_altered() => {
                self.altered.store(true, Relaxed);
                self.pause(Duration::from_secs(1), error.to_string());
            }
            Halt::Database(error) => {
                telemetry::database_error(&error, error.kind());
                let wait = match &error {
                    error if error.is_passing() => Duration::from_millis(20),
                    error if error.is_unreachable() => self.backoff(50, 2),
                    _ => self.backoff(1000, 30),
                };
                self.pause(wait, error.to_string());
            }
            Halt::Stopped | Halt::Abandoned => {}
        }
        None
    }

    /// Returns the length of the next pause: doubles with every consecutive pause, up to `max` seconds.
    fn backoff(&self, first_ms: u64, max: u64) -> Duration {
        let pauses = self.condition().pauses + 1;
        let backoff = Backoff::new(Duration::from_millis(first_ms), 2.0, Duration::from_secs(max), 0.2);
        backoff.map_or(Duration::from_secs(max), |backoff| backoff.delay(pauses, fastrand::f64()))
    }

    fn pause(&self, wait: Duration, reason: String) {
        telemetry::paused(self.name(), wait, &reason);
        let mut condition = self.condition();
        condition.pauses = condition.pauses.saturating_add(1);
        condition.last_failure.clone_from(&reason);
        condition.pause = Some(Pause { until: Instant::now() + wait, reason });
    }

    fn recovered(&self) {
        if std::mem::take(&mut self.condition().pauses) > 0 {
            telemetry::resumed(self.name());
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Claims, P: LoadedPlugin> Observer for SignalRunner<T, P> {
    fn claimed(&self, batch: &Batch) {
        self.activity.mark();
        self.condition().idle_workers = 0;
        // A full batch suggests that there is more, for another worker.
        if batch.full && self.workers() < self.flusher.concurrency.most {
            self.wake("more");
        }
    }

    fn unsettled(&self, error: &Error) {
        self.condition().unsettled = Some(error.to_string());
    }

    fn settled(&self, settlement: &Settlement) {
        self.tally.settled(settlement);
        self.condition().unsettled = None;
        if !settlement.delete.is_empty() {
            self.recovered();
            self.condition().failed_batches = 0;
            return;
        }
        let deferred = settlement.defer.first().map(|deferral| &deferral.reason);
        if let Some(reason) = deferred.or(settlement.bury.first().map(|burial| &burial.reason)) {
            let mut condition = self.condition();
            condition.failed_batches = condition.failed_batches.saturating_add(1);
            condition.last_failure.clone_from(reason);
        }
    }

    fn fenced(&self) {
        self.condition().unsettled = None;
        self.tally.fenced();
    }
}

/// Sleeps until `time`, or forever if it is `None`.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
