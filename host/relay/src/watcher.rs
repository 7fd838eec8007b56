//! The watcher: notices what has become due, by what the database announces, and by looking.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::activity::{Activity, LATELY};
use super::runner::{Runners, SignalRunner};
use crate::flusher::pause;
use signalbus_outbox::{Error, Outbox, Watch};
use signalbus_telemetry as telemetry;

/// While there was work within the last seconds.
const SHORTEST: Duration = Duration::from_millis(10);
/// Once nothing has happened for long.
const LONGEST: Duration = Duration::from_secs(5);
/// How often a database that announces nothing is asked whether it has learnt to.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Notices what has become due, and rings for it.
pub(super) struct Watcher {
    pub(super) outbox: Outbox,
    pub(super) runners: Arc<Runners>,
    pub(super) activity: Arc<Activity>,
    /// The database announces every commit.
    announced: AtomicBool,
}

impl Watcher {
    pub(super) fn new(outbox: Outbox, runners: Arc<Runners>, activity: Arc<Activity>) -> Self {
        Self { outbox, runners, activity, announced: AtomicBool::new(false) }
    }

    /// Looks again and again, the rarer the longer nothing has happened.
    pub(super) async fn look(&self, stop: &CancellationToken) {
        let mut thorough: HashMap<String, Instant> = HashMap::new();
        while !stop.is_cancelled() {
            let begun = Instant::now();
            if let Err(error) = self.look_once(&mut thorough, "poll").await {
                telemetry::database_error(&error, error.kind());
            }
            // A look at a table full of dead rows takes long: a tenth of the time is enough.
            let interval = self.interval().max(begun.elapsed() * 10);
            tokio::select! {
                () = pause(interval, stop) => {}
                () = self.activity.changed.notified(), if !self.announced.load(Relaxed) => {}
            }
        }
    }

    fn interval(&self) -> Duration {
        if self.announced.load(Relaxed) {
            return LONGEST;
        }
        let idle = self.activity.last().elapsed();
        (idle.saturating_sub(LATELY) / 10).clamp(SHORTEST, LONGEST)
    }

    async fn look_once(&self, thorough: &mut HashMap<String, Instant>, source: &'static str) -> Result<(), Error> {
        let runners = self.runners.all();
        let views = runners.iter().filter_map(|runner| Some((runner, runner.view(thorough.get(runner.name()).copied())?)));
        let views: Vec<(&Arc<SignalRunner>, bool)> = views.collect();
        for (runner, _) in views.iter().filter(|(_, thorough)| *thorough) {
            thorough.insert(runner.name().to_owned(), Instant::now());
        }
        self.look_at(&views, source).await
    }

    async fn look_at(&self, views: &[(&Arc<SignalRunner>, bool)], source: &'static str) -> Result<(), Error> {
        if views.is_empty() {
            return Ok(());
        }
        let lanes: Vec<_> = views.iter().map(|(runner, thorough)| (&runner.flusher.table, *thorough)).collect();
        match self.outbox.look(&lanes).await {
            Ok(due) => {
                let due = views.iter().zip(due).filter(|(_, due)| *due);
                due.for_each(|((runner, _), _)| runner.wake(source));
                Ok(())
            }
            // One table that can't be read must not hide the others; its own worker says what is wrong.
            Err(error) if !error.is_unreachable() => {
                views.iter().for_each(|(runner, _)| runner.wake(source));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Hears what the database announces; where it announces nothing, looking is enough.
    pub(super) async fn listen(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.outbox.watch().await {
                Ok(None) => pause(ASK_AGAIN, stop).await,
                Ok(Some(mut watch)) => {
                    telemetry::watching("the database announces commits");
                    self.announced.store(true, Relaxed);
                    let ended = self.hear(&mut *watch, stop).await;
                    self.announced.store(false, Relaxed);
                    self.activity.changed.notify_one();
                    if let Err(error) = ended {
                        telemetry::not_watching(&error);
                        pause(Duration::from_secs(1), stop).await;
                    }
                }
                Err(error) => {
                    telemetry::not_watching(&error);
                    let wait = if error.is_unreachable() { Duration::from_secs(1) } else { ASK_AGAIN };
                    pause(wait, stop).await;
                }
            }
        }
    }

    async fn hear(&self, watch: &mut dyn Watch, stop: &CancellationToken) -> Result<(), Error> {
        // What was committed while nobody listened.
        self.runners.all().iter().for_each(|runner| runner.wake("commit"));
        loop {
            let heard = tokio::select! {
                heard = watch.next() => heard?,
                () = stop.cancelled() => return Ok(()),
            };
            let runners = self.runners.all();
            match &heard {
                Some(name) => runners.iter().filter(|runner| runner.name() == name).for_each(|runner| runner.wake("commit")),
                None if runners.len() == 1 => runners[0].wake("commit"),
                // Whose commit it was, a look tells.
                None => {
                    let views: Vec<_> = runners.iter().map(|runner| (runner, true)).collect();
                    self.look_at(&views, "commit").await?;
                }
            }
        }
    }
}
