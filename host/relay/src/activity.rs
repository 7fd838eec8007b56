//! When something was last claimed: whoever looks for signals looks more often soon after.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// So long after the last work, looks become rarer.
pub(super) const LATELY: Duration = Duration::from_secs(3);

/// When something was last sent.
pub(super) struct Activity {
    last: Mutex<Instant>,
    pub(super) changed: Notify,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), changed: Notify::new() })
    }

    pub(super) fn mark(&self) {
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
