//! The watcher: wakes the runners of signal types that have something due, by polling and, where the
//! database supports it, by commit notifications.
//!
//! Never claims anything, and never relies on notifications alone. Next: `runner`, which it wakes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::{LastActivity, RECENT};
use super::runner::{Runners, SignalRunner};
use crate::flusher::pause;
use crate::ports::{LoadedPlugin, Watched};
use signalbus_outbox::{Error, Outbox, Watch};
use signalbus_plugin::Generations;
use signalbus_telemetry as telemetry;

/// Polling interval after recent activity.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Polling interval after a long time without activity, or with notifications, unless it is configured.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// How long a poll may take until the relay counts as blind.
const SILENCE: Duration = Duration::from_secs(5);
/// How often to check whether notifications have been set up meanwhile.
const RECHECK: Duration = Duration::from_secs(600);

/// Wakes the runners of signal types that have something due.
pub(super) struct OutboxWatcher<O: Watched = Outbox, P = Generations> {
    pub(super) outbox: O,
    pub(super) runners: Arc<Runners<O::Table, P>>,
    pub(super) activity: Arc<LastActivity>,
    /// The longest interval between two polls; `None`: it does not poll at all.
    longest: Option<Duration>,
    sight: Mutex<Sight>,
    /// The connection over which commits are announced may lead nowhere.
    lost: Notify,
    /// Whether the database notifies of every commit now.
    notified: AtomicBool,
}

/// What the relay can see of the database.
#[derive(Default)]
struct Sight {
    /// It is being polled.
    looking: Option<Instant>,
    /// When a poll failed, and why, if none has seen the rows since, and nothing was claimed.
    failed: Option<(Instant, String)>,
}

/// A signal type to look at, and whether from the start of its table.
type View<'a, T, P> = (&'a Arc<SignalRunner<T, P>>, bool);

impl<O: Watched, P: LoadedPlugin> OutboxWatcher<O, P> {
    pub(super) fn new(
        outbox: O,
        runners: Arc<Runners<O::Table, P>>,
        activity: Arc<LastActivity>,
        longest: Option<Duration>,
    ) -> Self {
        Self {
            outbox,
            runners,
            activity,
            longest,
            sight: Mutex::default(),
            lost: Notify::new(),
            notified: AtomicBool::new(false),
        }
    }

    /// Why the relay cannot look for signals, if it cannot.
    pub(super) fn blind(&self) -> Option<String> {
        let sight = self.sight();
        let silent = sight.looking.map(|since| since.elapsed()).filter(|time| *time > SILENCE);
        let silent = silent.map(|time| format!("the database has not answered for {} seconds", time.as_secs()));
        silent.or_else(|| sight.failed.as_ref().map(|(_, reason)| reason.clone()))
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database is to be left alone while there is nothing to do.
    pub(super) fn lets_sleep(&self) -> bool {
        self.longest.is_none_or(|longest| longest > MAX_INTERVAL)
    }

    /// Polls until stopped, less often the longer nothing was claimed.
    pub(super) async fn poll(&self, stop: &CancellationToken) {
        let mut thorough: HashMap<String, Instant> = HashMap::new();
        let Some(longest) = self.longest else { return };
        let mut before = Duration::ZERO;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            self.sight().looking = Some(begun);
            let polled = self.poll_once(&mut thorough, "poll").await;
            let failed = match polled {
                Ok(true) => None,
                Ok(false) => self.sight().failed.take().filter(|(since, _)| self.activity.last() <= *since),
                Err(error) => {
                    telemetry::database_error(&error, error.kind());
                    self.lost.notify_one();
                    Some((Instant::now(), error.to_string()))
                }
            };
            *self.sight() = Sight { looking: None, failed };
            // Spend at most a tenth of the time on polling a table in which it is slow, but do not go blind after a
            // lock or a silent network: one slow poll alone does not count, and whatever polls take, the next one is due
            // within seconds.
            let took = begun.elapsed();
            let usual = std::mem::replace(&mut before, took).min(took);
            let interval = self.interval(longest).max((usual * 10).min(MAX_INTERVAL));
            tokio::select! {
                () = pause(interval, stop) => {}
                () = self.activity.changed.notified(), if !self.notified.load(Relaxed) => {}
            }
        }
    }

    fn interval(&self, longest: Duration) -> Duration {
        if self.notified.load(Relaxed) {
            return longest;
        }
        let idle = self.activity.last().elapsed();
        let interval = (idle.saturating_sub(RECENT) / 10).max(MIN_INTERVAL);
        if interval < MAX_INTERVAL { interval.min(longest) } else { longest }
    }

    /// Returns whether anything was seen, as of [`look_at`](Self::look_at).
    async fn poll_once(&self, thorough: &mut HashMap<String, Instant>, source: &'static str) -> Result<bool, Error> {
        let runners = self.runners.all();
        let views = runners.iter().filter_map(|runner| Some((runner, runner.view(thorough.get(runner.name()).copied())?)));
        let views: Vec<_> = views.collect();
        for (runner, _) in views.iter().filter(|(_, thorough)| *thorough) {
            thorough.insert(runner.name().to_owned(), Instant::now());
        }
        self.look_at(&views, source).await
    }

    /// Wakes the runners of those that have something due. Returns whether all of them were looked at, if there are any: of
    /// what is being claimed, nothing can be told.
    async fn look_at(&self, views: &[View<'_, O::Table, P>], source: &'static str) -> Result<bool, Error> {
        if views.is_empty() {
            return Ok(false);
        }
        let tables: Vec<_> = views.iter().map(|(runner, thorough)| (&runner.flusher.table, *thorough)).collect();
        match self.outbox.look(&tables).await {
            Ok(due) => {
                let all = due.iter().all(Option::is_some);
                let due = views.iter().zip(due).filter(|(_, due)| *due == Some(true));
                due.for_each(|((runner, _), _)| runner.wake(source));
                Ok(all)
            }
            // One unreadable table must not hide the others; its own worker reports the error.
            Err(error) if !error.is_unreachable() => {
                views.iter().for_each(|(runner, _)| runner.wake(source));
                // While a table is locked, there may be something that nobody sees.
                if error.is_passing() { Err(error) } else { Ok(true) }
            }
            Err(error) => Err(error),
        }
    }

    /// Listens for commit notifications until stopped; without them, polling suffices.
    pub(super) async fn listen(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.outbox.watch().await {
                Ok(None) => pause(RECHECK, stop).await,
                Ok(Some(mut watch)) => {
                    telemetry::watching("the database announces commits");
                    self.notified.store(true, Relaxed);
                    let ended = self.wake_on_commits(&mut *watch, stop).await;
                    self.notified.store(false, Relaxed);
                    self.activity.changed.notify_one();
                    if let Err(error) = ended {
                        telemetry::not_watching(&error);
                        pause(Duration::from_secs(1), stop).await;
                    }
                }
                Err(error) => {
                    telemetry::not_watching(&error);
                    let wait = if error.is_unreachable() { Duration::from_secs(1) } else { RECHECK };
                    pause(wait, stop).await;
                }
            }
        }
    }

    async fn wake_on_commits(&self, watch: &mut dyn Watch, stop: &CancellationToken) -> Result<(), Error> {
        // There may have been commits while nobody listened.
        self.runners.all().iter().for_each(|runner| runner.wake("commit"));
        loop {
            let signal = tokio::select! {
                signal = watch.next() => signal?,
                () = self.lost.notified() => return Err(Error::Unreachable("the database could not be polled".into())),
                () = stop.cancelled() => return Ok(()),
            };
            let runners = self.runners.all();
            match &signal {
                Some(name) => runners.iter().filter(|runner| runner.name() == name).for_each(|runner| runner.wake("commit")),
                None if runners.len() == 1 => runners[0].wake("commit"),
                // Poll to find out which type the commit belongs to.
                None => {
                    let views: Vec<_> = runners.iter().map(|runner| (runner, true)).collect();
                    self.look_at(&views, "commit").await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
