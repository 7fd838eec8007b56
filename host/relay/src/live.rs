//! The running relay: starts, reloads, wakes, swaps plugins, redrives and drains.
//!
//! Never stops the signal types that a change does not concern, and settles what is in flight before a
//! signal type is replaced. Next: `runner`, one signal type of a running relay.

mod reload;
mod tending;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::activity::LastActivity;
use super::files::Files;
use super::parked::Parked;
use super::runner::{Health, Runners, SignalRunner};
use super::sample::Samples;
use super::status::{SignalStatus, Status};
use super::watcher::OutboxWatcher;
use super::{Opened, Redriven, Refusal, open_all, redrive, redrive_selected};
use crate::config::{Config, SignalConfig};
use crate::flusher::{Patience, pause};
use signalbus_bus::Buses;
use signalbus_core::suggest;
use signalbus_outbox::{DeadLetter, Error, Outbox, Selection};
use signalbus_plugin::{Compiler, Engine, LoadError, cache_folder};
use signalbus_telemetry as telemetry;

/// A relay that runs until it is stopped.
pub struct Live {
    path: PathBuf,
    config: Mutex<Config>,
    outbox: Outbox,
    engine: Engine,
    buses: Buses,
    runners: Arc<Runners>,
    watcher: OutboxWatcher,
    samples: Samples,
    files: Files,
    parked: Parked,
    /// A signal type was opened, or parked.
    opened: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Serialises configuration reloads.
    changing: tokio::sync::Mutex<()>,
    started: AtomicBool,
    begun: Instant,
}

/// The name of a signal type that is not running; the message suggests the nearest one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

impl Live {
    /// Creates a relay from the configuration read from `path`, without starting it. Cancelling `stop`
    /// ends it.
    ///
    /// # Errors
    /// The database URL or the processor is not supported.
    pub fn new(path: &Path, config: Config, compiler: Compiler, stop: CancellationToken) -> Result<Arc<Self>, Refusal> {
        let outbox = super::open_outbox(&config)?;
        let engine = Engine::new(cache_folder(), compiler).map_err(|error| Refusal::Faults(vec![format!("{error:#}")]))?;
        let poll = config.database.poll;
        let (runners, activity) = (Arc::<Runners>::default(), LastActivity::new());
        Ok(Arc::new(Self {
            path: path.to_owned(),
            config: Mutex::new(config),
            watcher: OutboxWatcher::new(outbox.clone(), runners.clone(), activity, poll),
            outbox,
            engine,
            buses: Buses::default(),
            runners,
            samples: Samples::default(),
            files: Files::default(),
            parked: Parked::default(),
            opened: Notify::new(),
            tasks: TaskTracker::new(),
            stop,
            changing: tokio::sync::Mutex::default(),
            started: AtomicBool::new(false),
            begun: Instant::now(),
        }))
    }

    /// Starts every signal type with `autoflush`, once the database is reachable, each as soon as its table and its
    /// plugin are opened. A type of which one is unfit is parked. Returns when the first type has started.
    ///
    /// # Errors
    /// No type can be started: every problem at once; none of them is transient.
    pub async fn start(self: &Arc<Self>) -> Result<(), Refusal> {
        let signals = autoflushed(&self.config());
        for tries in 1_u32.. {
            match self.stop.run_until_cancelled(self.outbox.require_schema()).await {
                None => return Ok(()),
                Some(Ok(())) => break,
                Some(Err(error)) if error.is_unreachable() || error.is_passing() => {
                    telemetry::database_error(&error, error.kind());
                    pause(Duration::from_millis(100) * tries.min(20), &self.stop).await;
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
        self.engine.keep_shares(signals.iter().map(SignalConfig::spec));
        signals.iter().for_each(|signal| self.parked.add(signal));
        self.look_after();
        self.stop.run_until_cancelled(self.first_started(&signals)).await.unwrap_or(Ok(()))?;
        self.started.store(true, Relaxed);
        Ok(())
    }

    /// Waits until a type runs.
    async fn first_started(&self, signals: &[SignalConfig]) -> Result<(), Refusal> {
        while self.runners.all().is_empty() && !signals.is_empty() {
            if let Some(faults) = self.parked.all_faults(signals) {
                return Err(Refusal::Faults(faults));
            }
            self.opened.notified().await;
        }
        Ok(())
    }

    /// Spawns what runs beside the signal types.
    fn look_after(self: &Arc<Self>) {
        // These have nothing to finish: a stop may end them anywhere.
        let live = self.clone();
        self.tasks.spawn(async move {
            let all = async {
                tokio::join!(
                    live.watcher.poll(&live.stop),
                    live.watcher.listen(&live.stop),
                    live.samples.run(&live.watcher, &live.stop),
                    live.files.watch(&live.runners, &live.stop),
                    live.tend(),
                )
            };
            live.stop.run_until_cancelled(all).await
        });
    }

    async fn open(&self, signals: &[SignalConfig]) -> Result<Vec<Opened>, Refusal> {
        self.outbox.require_schema().await?;
        signals.iter().for_each(|signal| self.files.note(signal));
        open_all(&self.outbox, &self.engine, &self.buses, signals, Patience::FOREVER).await
    }

    fn start_runners(&self, signals: &[SignalConfig], opened: Vec<Opened>) {
        for (signal, opened) in signals.iter().zip(opened) {
            let stop = self.stop.child_token();
            let runner = Arc::new(SignalRunner::new(signal.clone(), opened, self.watcher.activity.clone(), stop));
            self.runners.put(runner.clone());
            self.tasks.spawn(runner.run());
        }
    }

    /// Stops claiming and waits until everything in flight is settled. Returns whether that happened
    /// within the grace period.
    pub async fn drain(&self, grace: Duration) -> bool {
        telemetry::draining(grace);
        self.stop.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if drained {
            telemetry::drained();
        }
        drained
    }

    /// Wakes one signal type, or all of them, to look for signals now. Returns their names.
    ///
    /// # Errors
    /// The signal type is not running.
    pub fn wake(&self, signal: Option<&str>) -> Result<Vec<String>, Unknown> {
        let runners = match signal {
            Some(name) => vec![self.find(name)?],
            None => self.runners.all(),
        };
        runners.iter().for_each(|runner| runner.wake("call"));
        Ok(runners.iter().map(|runner| runner.name().to_owned()).collect())
    }

    /// Loads a signal type's plugin from its file again, and returns the digest of the current plugin.
    ///
    /// # Errors
    /// The signal type is not running. The inner error: the file cannot be used, and nothing changed.
    pub async fn swap(&self, signal: &str) -> Result<Result<String, LoadError>, Unknown> {
        let runner = self.find(signal)?;
        let swapped = runner.generations.swap().await;
        if swapped.is_ok() {
            runner.resume();
        }
        Ok(swapped.map(|_| runner.generations.digest()))
    }

    /// Rolls a signal type back to its previous plugin generation, and returns its digest; `None` if
    /// there is no previous generation.
    ///
    /// # Errors
    /// The signal type is not running.
    pub fn roll_back(&self, signal: &str) -> Result<Option<String>, Unknown> {
        let runner = self.find(signal)?;
        let digest = runner.generations.roll_back("requested by an operator");
        if digest.is_some() {
            runner.resume();
        }
        Ok(digest)
    }

    /// Redrives dead letters and wakes all signal types.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn redrive(&self, letters: &[DeadLetter]) -> Result<Redriven, Error> {
        let redriven = redrive(&self.outbox, &self.config().signals, letters).await?;
        self.runners.all().iter().for_each(|runner| runner.wake("call"));
        Ok(redriven)
    }

    /// Redrives all dead letters that are selected, and wakes all signal types.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn redrive_selected(&self, selection: &Selection) -> Result<Redriven, Error> {
        let redriven = redrive_selected(&self.outbox, &self.config().signals, selection).await?;
        self.runners.all().iter().for_each(|runner| runner.wake("call"));
        Ok(redriven)
    }

    /// Returns the outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Returns the reasons why the relay is not ready; empty if it is.
    pub fn problems(&self) -> Vec<String> {
        if !self.started.load(Relaxed) {
            return vec!["the relay has not started: the database is unreachable".into()];
        }
        let problem = |runner: &Arc<SignalRunner>| match runner.health() {
            Health::Healthy => None,
            Health::Paused { reason } | Health::Waiting { reason } | Health::Failing { reason } => {
                Some(format!("{}: {reason}", runner.name()))
            }
        };
        self.watcher
            .blind()
            .into_iter()
            .chain(self.runners.all().iter().filter_map(problem))
            .chain(self.parked.reasons())
            .collect()
    }

    /// Returns the status of the relay and of every signal type.
    pub fn status(&self) -> Status {
        let running = self.runners.all();
        let running = running.iter().map(|runner| SignalStatus::from_runner(runner, &self.samples.get(runner.name())));
        let mut signals: Vec<SignalStatus> = running.chain(self.parked.status()).collect();
        signals.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.begun.elapsed().as_secs(),
            ready: self.problems().is_empty(),
            signals,
        }
    }

    /// Updates the gauges that are only set when the metrics are read.
    pub fn measure(&self) {
        let ready = |runner: &Arc<SignalRunner>| (runner.name().to_owned(), runner.health() == Health::Healthy);
        let parked = self.parked.names().into_iter().map(|name| (name, false));
        let ready: Vec<_> = self.runners.all().iter().map(ready).chain(parked).collect();
        telemetry::update_gauges(self.outbox.connections(), self.engine.generations(), &ready);
    }

    fn find(&self, name: &str) -> Result<Arc<SignalRunner>, Unknown> {
        self.runners.find(name).ok_or_else(|| {
            if let Some(reason) = self.parked.reason(name) {
                return Unknown(format!("signal type \"{name}\" is not running: {reason}"));
            }
            let runners = self.runners.all();
            let nearest = suggest::nearest(name, runners.iter().map(|runner| runner.name()));
            Unknown(format!("signal type \"{name}\" is not running{nearest}"))
        })
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the signal types with `autoflush`.
fn autoflushed(config: &Config) -> Vec<SignalConfig> {
    config.signals.iter().filter(|signal| signal.autoflush).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GRACE;

    /// A relay without signal types. Its database is unreachable as long as its folder is missing.
    fn live(folder: &Path) -> Arc<Live> {
        let path = folder.join("signalbus.toml");
        std::fs::write(&path, "[database]\nurl = \"sqlite://data/outbox.db?mode=rwc\"").unwrap();
        Live::new(&path, Config::read(&path).unwrap(), Compiler::InProcess, CancellationToken::new()).unwrap()
    }

    #[tokio::test]
    async fn a_relay_is_not_ready_until_its_database_is_reachable() {
        let folder = tempfile::TempDir::new().unwrap();
        let live = live(folder.path());
        let started = tokio::spawn({
            let live = live.clone();
            async move { live.start().await }
        });
        while !matches!(live.outbox.require_schema().await, Err(error) if error.is_unreachable()) {}
        assert_eq!(live.problems(), ["the relay has not started: the database is unreachable"]);
        let prepared = folder.path().join("prepared");
        std::fs::create_dir(&prepared).unwrap();
        let url = format!("sqlite://{}/outbox.db?mode=rwc", prepared.display());
        Outbox::open(&url, 1).unwrap().migrate().await.unwrap();
        std::fs::rename(prepared, folder.path().join("data")).unwrap();
        started.await.unwrap().unwrap();
        assert_eq!(live.problems(), [""; 0]);
        assert!(live.drain(GRACE).await);
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait_for_the_database() {
        let folder = tempfile::TempDir::new().unwrap();
        let live = live(folder.path());
        live.stop.cancel();
        live.start().await.unwrap();
        assert!(!live.started.load(Relaxed));
        assert!(live.drain(GRACE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_grace_period() {
        let folder = tempfile::TempDir::new().unwrap();
        let live = live(folder.path());
        live.tasks.spawn(std::future::pending::<()>());
        let begun = tokio::time::Instant::now();
        assert!(!live.drain(GRACE).await);
        assert_eq!(begun.elapsed(), GRACE);
    }

    #[tokio::test]
    async fn a_type_that_does_not_run_is_unknown() {
        let folder = tempfile::TempDir::new().unwrap();
        let live = live(folder.path());
        assert_eq!(live.wake(None), Ok(vec![]));
        assert_eq!(live.wake(Some("A")).unwrap_err().to_string(), "signal type \"A\" is not running");
        assert_eq!(live.roll_back("A").unwrap_err(), live.wake(Some("A")).unwrap_err());
    }
}
