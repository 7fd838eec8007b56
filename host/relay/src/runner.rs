//! One signal type of a running relay: workers come when the wake_up rings, and go when nothing is due.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::config::SignalConfig;
use crate::flusher::{Flusher, Halt, Observer, Rest, Tally};
use signalbus_core::backoff::Backoff;
use signalbus_core::settlement::Settlement;
use signalbus_core::signal::Outage;
use signalbus_outbox::{Batch, Error};
use signalbus_plugin::Generations;
use signalbus_telemetry as telemetry;

/// One signal type of a running relay.
pub(super) struct SignalRunner {
    pub(super) config: SignalConfig,
    pub(super) flusher: Flusher,
    pub(super) generations: Arc<Generations>,
    pub(super) tally: Tally,
    /// Ends this signal type alone.
    pub(super) stop: CancellationToken,
    /// Everything that was in flight is settled.
    pub(super) ended: CancellationToken,
    wake_up: Notify,
    workers: AtomicUsize,
    condition: Mutex<Condition>,
    activity: Arc<Activity>,
}

/// The signal types of the moment, in the order of their names.
#[derive(Default)]
pub(super) struct Runners(RwLock<BTreeMap<String, Arc<SignalRunner>>>);

impl Runners {
    pub(super) fn all(&self) -> Vec<Arc<SignalRunner>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<SignalRunner>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn put(&self, runner: Arc<SignalRunner>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(runner.name().to_owned(), runner);
    }

    pub(super) fn remove(&self, name: &str) -> Option<Arc<SignalRunner>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

/// What is known of a signal type's state, beside its counters.
#[derive(Debug, Default)]
struct Condition {
    pause: Option<Pause>,
    /// Pauses in a row.
    pauses: u32,
    /// Why batches wait to be settled.
    unsettled: Option<String>,
    /// Batches in a row of which nothing was sent.
    fruitless: u32,
    last_failure: String,
    /// Workers in a row that found nothing to claim.
    vain: u32,
    /// Until then, the watcher need not look thoroughly.
    look_after: Option<Instant>,
}

/// Nothing is claimed for a while.
#[derive(Clone, Debug)]
struct Pause {
    until: Instant,
    reason: String,
}

/// How a signal type is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Fine,
    /// It waits before it tries again.
    Paused {
        reason: String,
    },
    /// Batches are sent, and nothing of them arrives.
    Failing {
        reason: String,
    },
}

/// Batches without a sent signal, after which a type counts as failing.
const FRUITLESS: u32 = 3;
/// How long an operator's fault is left alone: a swap or a reload of the configuration ends it.
const MISCONFIGURED: Duration = Duration::from_secs(60);
/// While batches are in flight, rows that are claimed look like rows that wait.
const THOROUGH_WHILE_BUSY: Duration = Duration::from_secs(1);
/// The longest that rows which others have claimed keep the watcher away.
const MOST_VAIN: Duration = Duration::from_millis(250);

impl SignalRunner {
    pub(super) fn new(
        config: SignalConfig,
        (flusher, generations): super::Opened,
        activity: Arc<Activity>,
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
            workers: AtomicUsize::new(0),
            condition: Mutex::default(),
            activity,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.config.name()
    }

    /// There may be something to send.
    pub(super) fn wake(&self, source: &'static str) {
        telemetry::woken(source);
        self.wake_up.notify_one();
    }

    /// Something has changed that may cure what the pause is for.
    pub(super) fn resume(&self) {
        let mut condition = self.condition();
        condition.pause = None;
        condition.fruitless = 0;
        drop(condition);
        self.wake("call");
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
            None if condition.fruitless >= FRUITLESS => Health::Failing { reason: condition.last_failure.clone() },
            None => Health::Fine,
        }
    }

    /// Whether the watcher should look here, and thoroughly; `last` is when it last did that.
    pub(super) fn view(&self, last: Option<Instant>) -> Option<bool> {
        let condition = self.condition();
        if condition.pause.is_some() {
            return None;
        }
        let busy = self.workers() > 0;
        let lately = last.is_some_and(|last| last.elapsed() < THOROUGH_WHILE_BUSY);
        let in_vain = condition.look_after.is_some_and(|after| after > Instant::now());
        let thorough = !(in_vain || busy && lately);
        // An ordered type is always looked at from its start.
        let ordered = self.flusher.policy.ordered;
        (thorough || !ordered).then_some(thorough)
    }

    /// Sends whatever becomes due until told to stop, and settles what is in flight then.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut workers = JoinSet::new();
        let mut woken = true;
        let mut timer: Option<Instant> = None;
        while !self.stop.is_cancelled() {
            let pause = self.condition().pause.as_ref().map(|pause| pause.until);
            if woken && pause.is_none() && workers.len() < self.flusher.concurrency {
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
                    if let Some(rest) = self.after(ended) {
                        timer = self.next_timer(rest);
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

    async fn work(self: Arc<Self>) -> Result<Rest, Halt> {
        let sent_before = self.tally.total();
        let rest = self.flusher.work(None, &*self, &self.stop).await;
        let mut condition = self.condition();
        if rest.is_ok() && self.tally.total() == sent_before {
            condition.vain = condition.vain.saturating_add(1);
            let wait = Duration::from_millis(5 << condition.vain.min(6)).min(MOST_VAIN);
            condition.look_after = Some(Instant::now() + wait);
        }
        rest
    }

    /// When to look again without being woken for.
    fn next_timer(&self, rest: Rest) -> Option<Instant> {
        if rest.due_in.is_none() {
            self.condition().fruitless = 0;
        }
        let times = [rest.due_in, rest.claimed_for.map(|expiry| expiry + Duration::from_millis(10))];
        times.into_iter().flatten().min().map(|wait| Instant::now() + wait)
    }

    fn after(&self, ended: Result<Result<Rest, Halt>, JoinError>) -> Option<Rest> {
        let halt = match ended {
            Ok(Ok(rest)) => {
                // One that found nothing, because another is at it, shows nothing.
                if self.workers() == 0 && self.condition().pause.is_none() {
                    self.recovered();
                }
                return Some(rest);
            }
            Ok(Err(halt)) => halt,
            Err(panic) => {
                self.pause(Duration::from_secs(30), format!("a worker panicked: {panic}"));
                return None;
            }
        };
        match halt {
            Halt::Outage(Outage::Unavailable { reason, after }) => {
                let wait = after.unwrap_or_else(|| self.backoff(1000, 3));
                self.pause(wait, format!("the bus is not available: {reason}"));
            }
            Halt::Outage(Outage::Misconfigured { reason }) => {
                // The generation before may have what this one misses.
                let wait = if self.generations.take_rolled_back() { Duration::ZERO } else { MISCONFIGURED };
                self.pause(wait, format!("the plugin is misconfigured: {reason}"));
            }
            Halt::Stalled(reason) => {
                let wait = if self.generations.take_rolled_back() { Duration::ZERO } else { self.backoff(1000, 60) };
                self.pause(wait, format!("the plugin fails: {reason}"));
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

    /// Doubled with every pause in a row, up to so many seconds.
    fn backoff(&self, first_ms: u64, most: u64) -> Duration {
        let pauses = self.condition().pauses + 1;
        let backoff = Backoff::new(Duration::from_millis(first_ms), 2.0, Duration::from_secs(most), 0.2);
        backoff.map_or(Duration::from_secs(most), |backoff| backoff.delay(pauses, fastrand::f64()))
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

impl Observer for SignalRunner {
    fn claimed(&self, batch: &Batch) {
        self.activity.mark();
        self.condition().vain = 0;
        // A full batch is a sign that there is more, for another worker.
        if batch.signals.len() >= self.flusher.burst_count && self.workers() < self.flusher.concurrency {
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
            self.condition().fruitless = 0;
            return;
        }
        let deferred = settlement.defer.first().map(|deferral| &deferral.reason);
        if let Some(reason) = deferred.or(settlement.bury.first().map(|burial| &burial.reason)) {
            let mut condition = self.condition();
            condition.fruitless = condition.fruitless.saturating_add(1);
            condition.last_failure.clone_from(reason);
        }
    }

    fn fenced(&self) {
        self.condition().unsettled = None;
        self.tally.fenced();
    }
}

/// For ever where there is no time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
