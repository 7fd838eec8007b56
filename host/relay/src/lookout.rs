//! The lookout: notices what has become due, by what the database announces, and by looking.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::post::{Post, Posts};
use crate::flusher::pause;
use signalbus_outbox::{Error, Outbox, Watch};
use signalbus_telemetry as telemetry;

/// While there was work within the last seconds.
const SHORTEST: Duration = Duration::from_millis(10);
/// Once nothing has happened for long.
const LONGEST: Duration = Duration::from_secs(5);
/// So long after the last work, looks become rarer.
const LATELY: Duration = Duration::from_secs(3);
/// How often a database that announces nothing is asked whether it has learnt to.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// When something was last sent.
pub(super) struct Pulse {
    last: Mutex<Instant>,
    changed: Notify,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), changed: Notify::new() })
    }

    pub(super) fn beat(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, Instant::now());
        if before.elapsed() > LATELY {
            self.changed.notify_one();
        }
    }

    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices what has become due, and rings for it.
pub(super) struct Lookout {
    pub(super) outbox: Outbox,
    pub(super) posts: Arc<Posts>,
    pub(super) pulse: Arc<Pulse>,
    /// The database announces every commit.
    announced: AtomicBool,
}

impl Lookout {
    pub(super) fn new(outbox: Outbox, posts: Arc<Posts>, pulse: Arc<Pulse>) -> Self {
        Self { outbox, posts, pulse, announced: AtomicBool::new(false) }
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
                () = self.pulse.changed.notified(), if !self.announced.load(Relaxed) => {}
            }
        }
    }

    fn interval(&self) -> Duration {
        if self.announced.load(Relaxed) {
            return LONGEST;
        }
        let idle = self.pulse.last().elapsed();
        (idle.saturating_sub(LATELY) / 10).clamp(SHORTEST, LONGEST)
    }

    async fn look_once(&self, thorough: &mut HashMap<String, Instant>, source: &'static str) -> Result<(), Error> {
        let posts = self.posts.all();
        let views = posts.iter().filter_map(|post| Some((post, post.view(thorough.get(post.name()).copied())?)));
        let views: Vec<(&Arc<Post>, bool)> = views.collect();
        for (post, _) in views.iter().filter(|(_, thorough)| *thorough) {
            thorough.insert(post.name().to_owned(), Instant::now());
        }
        self.look_at(&views, source).await
    }

    async fn look_at(&self, views: &[(&Arc<Post>, bool)], source: &'static str) -> Result<(), Error> {
        if views.is_empty() {
            return Ok(());
        }
        let lanes: Vec<_> = views.iter().map(|(post, thorough)| (&post.flusher.lane, *thorough)).collect();
        match self.outbox.look(&lanes).await {
            Ok(due) => {
                let due = views.iter().zip(due).filter(|(_, due)| *due);
                due.for_each(|((post, _), _)| post.ring(source));
                Ok(())
            }
            // One table that can't be read must not hide the others; its own worker says what is wrong.
            Err(error) if !error.is_unreachable() => {
                views.iter().for_each(|(post, _)| post.ring(source));
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
                    self.pulse.changed.notify_one();
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
        self.posts.all().iter().for_each(|post| post.ring("commit"));
        loop {
            let heard = tokio::select! {
                heard = watch.next() => heard?,
                () = stop.cancelled() => return Ok(()),
            };
            let posts = self.posts.all();
            match &heard {
                Some(name) => posts.iter().filter(|post| post.name() == name).for_each(|post| post.ring("commit")),
                None if posts.len() == 1 => posts[0].ring("commit"),
                // Whose commit it was, a look tells.
                None => {
                    let views: Vec<_> = posts.iter().map(|post| (post, true)).collect();
                    self.look_at(&views, "commit").await?;
                }
            }
        }
    }
}
