//! A relay that runs until it is told to stop; everything about it can be changed meanwhile.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::Files;
use super::lookout::{Lookout, Pulse};
use super::post::{Health, Post, Posts};
use super::sample::Samples;
use super::status::{SignalStatus, Status};
use super::{Opened, Redriven, Refusal, cache_folder, open_all, redrive};
use signalbus_bus::Buses;
use crate::config::{Config, SignalConfig};
use crate::flusher::{Patience, pause};
use signalbus_outbox::{DeadLetter, Error, Outbox};
use signalbus_plugin::{Engine, LoadError};
use signalbus_core::suggest;
use signalbus_telemetry as telemetry;

/// A relay that runs until it is told to stop.
pub struct Live {
    path: PathBuf,
    config: Mutex<Config>,
    outbox: Outbox,
    engine: Engine,
    buses: Buses,
    posts: Arc<Posts>,
    lookout: Lookout,
    samples: Samples,
    files: Files,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// One change of the configuration at a time.
    changing: tokio::sync::Mutex<()>,
    started: AtomicBool,
    begun: Instant,
}

/// A name that is no signal type which runs; the sentence suggests the nearest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(String);

impl Live {
    /// A relay that has not begun yet, of the configuration that was read from `path`; `stop` ends
    /// it.
    ///
    /// # Errors
    /// The database's URL, or the processor, is not supported.
    pub fn new(path: &Path, config: Config, stop: CancellationToken) -> Result<Arc<Self>, Refusal> {
        let outbox = Outbox::open(&config.database.url, config.database.max_connections)?;
        let engine = Engine::new(cache_folder()).map_err(|error| Refusal::Faults(vec![format!("{error:#}")]))?;
        let (posts, pulse) = (Arc::<Posts>::default(), Pulse::new());
        Ok(Arc::new(Self {
            path: path.to_owned(),
            config: Mutex::new(config),
            lookout: Lookout::new(outbox.clone(), posts.clone(), pulse),
            outbox,
            engine,
            buses: Buses::default(),
            posts,
            samples: Samples::default(),
            files: Files::default(),
            tasks: TaskTracker::new(),
            stop,
            changing: tokio::sync::Mutex::default(),
            started: AtomicBool::new(false),
            begun: Instant::now(),
        }))
    }

    /// Opens every signal type that is sent by itself, as soon as the database answers, and begins
    /// to send.
    ///
    /// # Errors
    /// Every fault at once; none of them passes by itself.
    pub async fn start(self: &Arc<Self>) -> Result<(), Refusal> {
        let signals = automatic(&self.config());
        for tries in 1_u32.. {
            match self.open(&signals).await {
                Ok(opened) => {
                    self.post(&signals, opened);
                    break;
                }
                Err(Refusal::Database(error)) if error.is_unreachable() || error.is_passing() => {
                    telemetry::database_error(&error, error.kind());
                    pause(Duration::from_millis(100) * tries.min(20), &self.stop).await;
                }
                Err(refusal) => return Err(refusal),
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        // These have nothing to finish: a stop ends them wherever they are.
        let live = self.clone();
        self.tasks.spawn(async move {
            let all = async {
                tokio::join!(
                    live.lookout.look(&live.stop),
                    live.lookout.listen(&live.stop),
                    live.samples.keep(&live.lookout, &live.stop),
                    live.files.watch(&live.posts, &live.stop),
                )
            };
            live.stop.run_until_cancelled(all).await
        });
        self.started.store(true, Relaxed);
        Ok(())
    }

    async fn open(&self, signals: &[SignalConfig]) -> Result<Vec<Opened>, Refusal> {
        self.outbox.require_schema().await?;
        signals.iter().for_each(|signal| self.files.note(signal));
        open_all(&self.outbox, &self.engine, &self.buses, signals, Patience::FOREVER).await
    }

    fn post(&self, signals: &[SignalConfig], opened: Vec<Opened>) {
        for (signal, opened) in signals.iter().zip(opened) {
            let stop = self.stop.child_token();
            let post = Arc::new(Post::new(signal.clone(), opened, self.lookout.pulse.clone(), stop));
            self.posts.put(post.clone());
            self.tasks.spawn(post.keep());
        }
    }

    /// Reads the configuration again: signal types appear, change and vanish, the others go on.
    /// Changed plugin files are loaded, too.
    ///
    /// # Errors
    /// Every fault; nothing has changed then.
    pub async fn reload(&self) -> Result<(), Vec<String>> {
        let _changing = self.changing.lock().await;
        let reloaded = self.change().await;
        match &reloaded {
            Ok(()) => self.files.look_now(&self.posts).await,
            Err(faults) => telemetry::reload_refused(faults),
        }
        reloaded
    }

    async fn change(&self) -> Result<(), Vec<String>> {
        let wanted = Config::read(&self.path)?;
        let running = self.config();
        if (&wanted.database, &wanted.admin) != (&running.database, &running.admin) {
            let place = self.path.display();
            return Err(vec![format!("{place}: `database` and `admin` can't change while the relay runs; restart it")]);
        }
        let signals = automatic(&wanted);
        let same = |signal: &SignalConfig| {
            self.posts.find(signal.name()).is_some_and(|post| post.config.clone().at(&signal.place) == *signal)
        };
        let fresh: Vec<SignalConfig> = signals.iter().filter(|signal| !same(signal)).cloned().collect();
        let opened = self.open(&fresh).await.map_err(|refusal| match refusal {
            Refusal::Faults(faults) => faults,
            Refusal::Database(error) => vec![error.to_string()],
        })?;
        let names = |posts: &[Arc<Post>]| posts.iter().map(|post| post.name().to_owned()).collect::<Vec<_>>();
        let leaves = |post: &Arc<Post>| signals.iter().all(|signal| signal.name() != post.name());
        let changes = |post: &Arc<Post>| fresh.iter().any(|signal| signal.name() == post.name());
        let posts = self.posts.all();
        let leaving: Vec<_> = posts.iter().filter(|post| leaves(post)).cloned().collect();
        let changing: Vec<_> = posts.iter().filter(|post| changes(post)).cloned().collect();
        let (left, changed) = (names(&leaving), names(&changing));
        let started = fresh.iter().map(|signal| signal.name().to_owned()).filter(|name| !changed.contains(name));
        let started: Vec<_> = started.collect();
        // The old worker settles before the new one claims.
        join_all(leaving.iter().chain(&changing).map(|post| async {
            self.posts.remove(post.name());
            post.stop.cancel();
            post.ended.cancelled().await;
        }))
        .await;
        self.post(&fresh, opened);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        telemetry::reloaded(&started, &left, &changed);
        Ok(())
    }

    /// Claims no more, and waits until everything in flight is settled. `false`: the grace period
    /// ended before.
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

    /// Looks for signals now: of one type, or of all.
    ///
    /// # Errors
    /// There is no such type.
    pub fn wake(&self, signal: Option<&str>) -> Result<Vec<String>, Unknown> {
        let posts = match signal {
            Some(name) => vec![self.find(name)?],
            None => self.posts.all(),
        };
        posts.iter().for_each(|post| post.ring("call"));
        Ok(posts.iter().map(|post| post.name().to_owned()).collect())
    }

    /// Loads a signal type's plugin from its file again; the digest of what sends from now on.
    ///
    /// # Errors
    /// There is no such type; or, inside, the file can't be used, and nothing has changed.
    pub async fn swap(&self, signal: &str) -> Result<Result<String, LoadError>, Unknown> {
        let post = self.find(signal)?;
        let swapped = post.generations.swap().await;
        if swapped.is_ok() {
            post.resume();
        }
        Ok(swapped.map(|_| post.generations.digest()))
    }

    /// Goes back to a signal type's plugin before the last swap; `None`: there is none.
    ///
    /// # Errors
    /// There is no such type.
    pub fn roll_back(&self, signal: &str) -> Result<Option<String>, Unknown> {
        let post = self.find(signal)?;
        let digest = post.generations.roll_back("an operator asked for it");
        if digest.is_some() {
            post.resume();
        }
        Ok(digest)
    }

    /// Puts dead letters back into their tables, and looks for them.
    ///
    /// # Errors
    /// The database can't be reached.
    pub async fn redrive(&self, letters: &[DeadLetter]) -> Result<Redriven, Error> {
        let redriven = redrive(&self.outbox, &self.config().signals, letters).await?;
        self.posts.all().iter().for_each(|post| post.ring("call"));
        Ok(redriven)
    }

    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Why the relay is not ready; nothing where it is.
    pub fn troubles(&self) -> Vec<String> {
        if !self.started.load(Relaxed) {
            return vec!["the relay has not begun: the database does not answer".into()];
        }
        let trouble = |post: &Arc<Post>| match post.health() {
            Health::Fine => None,
            Health::Paused { reason } | Health::Failing { reason } => Some(format!("{}: {reason}", post.name())),
        };
        self.posts.all().iter().filter_map(trouble).collect()
    }

    pub fn status(&self) -> Status {
        let posts = self.posts.all();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.begun.elapsed().as_secs(),
            ready: self.troubles().is_empty(),
            signals: posts.iter().map(|post| SignalStatus::of(post, &self.samples.of(post.name()))).collect(),
        }
    }

    /// Brings the gauges up to date that nobody moves.
    pub fn measure(&self) {
        let ready = |post: &Arc<Post>| (post.name().to_owned(), post.health() == Health::Fine);
        let ready: Vec<_> = self.posts.all().iter().map(ready).collect();
        telemetry::now(self.outbox.connections(), self.engine.generations(), &ready);
    }

    fn find(&self, name: &str) -> Result<Arc<Post>, Unknown> {
        self.posts.find(name).ok_or_else(|| {
            let posts = self.posts.all();
            let nearest = suggest::nearest(name, posts.iter().map(|post| post.name()));
            Unknown(format!("no signal type \"{name}\" runs here{nearest}"))
        })
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The signal types that are sent by themselves.
fn automatic(config: &Config) -> Vec<SignalConfig> {
    config.signals.iter().filter(|signal| signal.autoflush).cloned().collect()
}
