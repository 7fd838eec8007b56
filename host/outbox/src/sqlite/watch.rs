//! Waiting for commits to an SQLite file: every write to its write-ahead log is heard of.
//!
//! Sees commits of other connections only. Next: `watcher` in `signalbus-relay`, which waits.

use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use notify::Watcher as _;
use tokio::sync::mpsc;

use crate::database::{Purpose, Session, Watch, number};
use crate::error::Error;
use crate::sql::{Placeholder, Sql};

/// Hears of every write to the write-ahead log.
pub(super) struct Writes {
    _watcher: notify::RecommendedWatcher,
    heard: mpsc::Receiver<()>,
}

impl Writes {
    /// `None` if files cannot be watched.
    pub(super) fn from_file(file: &Path) -> Option<Self> {
        let file = file.canonicalize().ok()?;
        let mut log = file.file_name()?.to_owned();
        log.push("-wal");
        let (hears, heard) = mpsc::channel(1);
        let watch = move |event: notify::Result<notify::Event>| {
            let written =
                |event: &notify::Event| event.kind.is_modify() && event.paths.iter().any(|path| path.file_name() == Some(&log));
            if event.is_ok_and(|event| written(&event)) {
                // One that is not heard yet tells as much as two.
                let _ = hears.try_send(());
            }
        };
        let mut watcher = notify::recommended_watcher(watch).ok()?;
        watcher.watch(file.parent()?, notify::RecursiveMode::NonRecursive).ok()?;
        Some(Self { _watcher: watcher, heard })
    }
}

/// Watches the write-ahead log, and asks SQLite whether another connection has committed.
pub(super) struct LogWatch {
    pub(super) writes: Writes,
    pub(super) session: Box<dyn Session>,
    /// Changes with every commit of another connection, and only with those.
    pub(super) seen: Option<u64>,
}

impl LogWatch {
    /// Most writes are heard of before the commit can be seen: it is asked for again after so long.
    const DELAYS: [u64; 9] = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600];

    pub(super) async fn version(&mut self) -> Result<u64, Error> {
        self.session.begin(Purpose::Watch).await?;
        let rows = self.session.rows(Sql::new(Placeholder::Question, "PRAGMA data_version")).await?;
        self.session.commit().await?;
        Ok(rows.first().map(|row| number(&row[0])).unwrap_or_default())
    }
}

impl Watch for LogWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async move {
            let mut checks = Self::DELAYS.len();
            loop {
                let delay = Self::DELAYS.get(checks).map(|micros| Duration::from_micros(*micros));
                tokio::select! {
                    // Every write may be a commit's last one, and there are ours among them.
                    heard = self.writes.heard.recv() => match heard {
                        Some(()) => checks = 0,
                        None => return Err(Error::Unreachable("the write-ahead log can no longer be watched".into())),
                    },
                    () = sleep(delay) => checks += 1,
                }
                let version = Some(self.version().await?);
                if version != self.seen {
                    self.seen = version;
                    return Ok(None);
                }
            }
        })
    }
}

/// Waits forever if there is no time to wait for.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
