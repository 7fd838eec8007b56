//! Plugin files: polls them for changes, and loads a changed file as the next plugin generation.
//!
//! Never replaces a working plugin by a file that cannot be used. Next: `Generations` in `signalbus-plugin`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::{Runners, SignalRunner};
use crate::config::SignalConfig;
use crate::flusher::pause;

/// How often files are checked. (File system notifications are quicker, but do not work on network
/// disks, nor if a folder of the path is replaced.)
const INTERVAL: Duration = Duration::from_millis(250);

/// Device, inode, modification time and size: some of these change with the file. `None` if there is no file.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// The state of the plugin files by signal type.
#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<HashMap<String, FileState>>>);

#[derive(Clone, Copy, Debug, Default)]
struct FileState {
    loaded: Stamp,
    /// The file changed, but may still be being written.
    changed: Option<Stamp>,
    /// It is being loaded, which may take minutes: what it is then, is loaded afterwards.
    loading: bool,
}

impl Files {
    /// Notes the current file of a signal type as loaded.
    pub(super) fn note(&self, signal: &SignalConfig) {
        let known = FileState { loaded: stamp(&signal.plugin), ..FileState::default() };
        self.states().insert(signal.name().to_owned(), known);
    }

    /// Loads changed files until stopped, each once it has stayed the same for one interval.
    pub(super) async fn watch(&self, runners: &Arc<Runners>, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            for runner in runners.all() {
                if self.is_settled(&runner.config, true) {
                    let files = self.clone();
                    tokio::spawn(async move {
                        runner.stop.clone().run_until_cancelled(load(&runner)).await;
                        files.loaded(runner.name());
                    });
                }
            }
            pause(INTERVAL, stop).await;
        }
    }

    /// Loads changed files at once.
    pub(super) async fn load_changed(&self, runners: &Runners) {
        for runner in runners.all() {
            if self.is_settled(&runner.config, false) {
                load(&runner).await;
                self.loaded(runner.name());
            }
        }
    }

    fn loaded(&self, name: &str) {
        if let Some(known) = self.states().get_mut(name) {
            known.loading = false;
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, FileState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a file has changed and, with `twice`, has stayed the same since the last check.
    fn is_settled(&self, signal: &SignalConfig, twice: bool) -> bool {
        let now = stamp(&signal.plugin);
        let mut files = self.states();
        let known = files.entry(signal.name().to_owned()).or_default();
        if known.loading || now == known.loaded {
            known.changed = None;
            return false;
        }
        if twice && known.changed != Some(now) {
            known.changed = Some(now);
            return false;
        }
        *known = FileState { loaded: now, changed: None, loading: true };
        true
    }
}

/// Loads a changed file; `swap` itself reports errors.
async fn load(runner: &Arc<SignalRunner>) {
    if let Ok(true) = runner.generations.swap().await {
        runner.resume();
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn plugin(folder: &Path) -> SignalConfig {
        SignalConfig { plugin: folder.join("plugin.wasm"), ..fake::config("A") }
    }

    #[test]
    fn a_changed_file_is_loaded_once_it_stays_the_same() {
        let folder = tempfile::TempDir::new().unwrap();
        let (files, signal) = (Files::default(), plugin(folder.path()));
        std::fs::write(&signal.plugin, "1").unwrap();
        files.note(&signal);
        assert!(!files.is_settled(&signal, true));
        for text in ["12", "123", "1234"] {
            std::fs::write(&signal.plugin, text).unwrap();
            assert!(!files.is_settled(&signal, true), "it may still be being written");
        }
        assert!(files.is_settled(&signal, true));
        // A rollback does not change the file: it is not loaded again.
        for _ in 0..10 {
            assert!(!files.is_settled(&signal, true));
        }
    }

    #[test]
    fn a_reload_does_not_wait_for_a_changed_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let (files, signal) = (Files::default(), plugin(folder.path()));
        files.note(&signal);
        std::fs::write(&signal.plugin, "1").unwrap();
        assert!(files.is_settled(&signal, false));
        assert!(!files.is_settled(&signal, false));
        files.loaded(signal.name());
        std::fs::remove_file(&signal.plugin).unwrap();
        assert!(files.is_settled(&signal, false));
    }

    /// However often it changes, one load waits at most.
    #[test]
    fn what_changes_while_it_is_loaded_is_loaded_afterwards() {
        let folder = tempfile::TempDir::new().unwrap();
        let (files, signal) = (Files::default(), plugin(folder.path()));
        files.note(&signal);
        std::fs::write(&signal.plugin, "1").unwrap();
        assert!(files.is_settled(&signal, false));
        for text in ["12", "123"] {
            std::fs::write(&signal.plugin, text).unwrap();
            assert!(!files.is_settled(&signal, false));
        }
        files.loaded(signal.name());
        assert!(files.is_settled(&signal, false));
        files.loaded(signal.name());
        assert!(!files.is_settled(&signal, false));
    }
}
