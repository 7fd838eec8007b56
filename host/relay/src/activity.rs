//! The time of the last claim: the watcher polls more often after recent activity, and the sampler
//! counts only after some.
//!
//! Notes when something was claimed, and nothing else. Next: `watcher` and `sample`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// LastActivity counts as recent for this long; after that, polling slows down.
pub(super) const RECENT: Duration = Duration::from_secs(3);

/// The time of the last claim.
pub(super) struct LastActivity {
    last: Mutex<Instant>,
    /// Notified on the first claim after a quiet period.
    pub(super) changed: Notify,
}

impl LastActivity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), changed: Notify::new() })
    }

    pub(super) fn mark(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, Instant::now());
        if before.elapsed() > RECENT {
            self.changed.notify_one();
        }
    }

    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_claim_after_a_quiet_time_is_a_change() {
        let activity = LastActivity::new();
        let changed = || activity.changed.notified().now_or_never().is_some();
        for (quiet, notified) in [(Duration::ZERO, false), (RECENT, false), (RECENT * 2, true), (Duration::ZERO, false)] {
            tokio::time::advance(quiet).await;
            activity.mark();
            assert_eq!((changed(), activity.last()), (notified, Instant::now()), "after {quiet:?}");
        }
    }
}
