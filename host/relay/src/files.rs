//! Plugin files, looked at now and then: a changed one becomes the next generation.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::{Runners, SignalRunner};
use crate::config::SignalConfig;
use crate::flusher::pause;

/// How often files are looked at. (To be told of changes is quicker, and does not work on network
/// disks, nor where a folder in the path is exchanged.)
const INTERVAL: Duration = Duration::from_millis(250);

/// What changes when a file does; `None`: there is no such file.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// What is known of plugin files, by signal type.
#[derive(Default)]
pub(super) struct Files(Mutex<HashMap<String, Known>>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    loaded: Stamp,
    /// Changed, and perhaps not written to its end yet.
    changed: Option<Stamp>,
}

impl Files {
    /// A signal type's file is about to be loaded.
    pub(super) fn note(&self, signal: &SignalConfig) {
        let known = Known { loaded: stamp(&signal.plugin), changed: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(signal.name().to_owned(), known);
    }

    /// Loads what has changed, once it has not changed for a moment.
    pub(super) async fn watch(&self, runners: &Arc<Runners>, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            for runner in runners.all() {
                if self.is_settled(&runner, true) {
                    load(&runner).await;
                }
            }
            pause(INTERVAL, stop).await;
        }
    }

    /// Loads what has changed.
    pub(super) async fn look_now(&self, runners: &Runners) {
        for runner in runners.all() {
            if self.is_settled(&runner, false) {
                load(&runner).await;
            }
        }
    }

    /// Whether a file has changed; with `twice`, whether it also was the same when last looked at.
    fn is_settled(&self, runner: &SignalRunner, twice: bool) -> bool {
        let now = stamp(&runner.config.plugin);
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.entry(runner.name().to_owned()).or_default();
        if now == known.loaded {
            known.changed = None;
            return false;
        }
        if twice && known.changed != Some(now) {
            known.changed = Some(now);
            return false;
        }
        *known = Known { loaded: now, changed: None };
        true
    }
}

/// What goes wrong has been told where it happened.
async fn load(runner: &Arc<SignalRunner>) {
    if let Ok(true) = runner.generations.swap().await {
        runner.resume();
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}
