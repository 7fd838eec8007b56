//! Turns: how many of a kind may go on at a time, and who is next.
//!
//! Whoever takes little goes first; nobody waits longer than its patience. Next: `compiler` and `engine`, which wait.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many of a kind may go on at a time.
#[derive(Debug)]
pub(super) struct Turns {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    left: usize,
    /// Who waits: the level, and in which order they came.
    waiting: BTreeSet<(usize, u64)>,
    serial: u64,
}

impl Turns {
    pub(super) fn new(number: usize) -> Self {
        Self { queue: Mutex::new(Queue { left: number, waiting: BTreeSet::new(), serial: 0 }), changed: Condvar::new() }
    }

    /// Waits for a turn, for a while, behind those of lower levels.
    pub(super) fn take(&self, level: usize, patience: Duration) -> Option<Turn<'_>> {
        let mut queue = self.queue();
        queue.serial += 1;
        let own = (level, queue.serial);
        queue.waiting.insert(own);
        let is_next = |queue: &Queue| queue.left > 0 && queue.waiting.first() == Some(&own);
        let waited = self.changed.wait_timeout_while(queue, patience, |queue| !is_next(queue));
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = is_next(&queue);
        queue.waiting.remove(&own);
        queue.left -= usize::from(taken);
        // Another may be next now.
        self.changed.notify_all();
        taken.then(|| Turn(self))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.queue().left += 1;
        self.0.changed.notify_all();
    }
}
