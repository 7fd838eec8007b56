//! Pauses that leave a database's lock free for others who poll for it, such as writers of SQLite.
//!
//! Never pauses while nobody else writes. Next: `connection`, which waits before it takes a connection.

use std::time::{Duration, Instant};

/// How long to leave the database's lock alone, so that those who poll for it find it free: half as
/// long as it was held, while anybody else writes.
#[derive(Default)]
pub(super) struct Pauses {
    owed: Duration,
    released: Option<Instant>,
    asked: Option<Instant>,
    version: Option<u64>,
    /// When another was last seen to have written.
    others: Option<Instant>,
}

impl Pauses {
    /// Shorter ones are saved up: the timer is no finer.
    const LEAST: Duration = Duration::from_millis(2);
    const MOST: Duration = Duration::from_millis(50);
    /// How often to look for other writers, and how long they are remembered.
    const LOOK: Duration = Duration::from_millis(20);
    const REMEMBERED: Duration = Duration::from_secs(10);

    /// The lock was held.
    pub(super) fn owe(&mut self, since: Instant, now: Instant) {
        self.owed = (self.owed + now.duration_since(since) / 2).min(Self::MOST);
        self.released = Some(now);
    }

    /// What is to be waited for now; time that nobody held the lock anyway counts.
    pub(super) fn due(&mut self, now: Instant) -> Duration {
        let free = self.released.take().map(|released| now.duration_since(released)).unwrap_or_default();
        self.owed = self.owed.saturating_sub(free);
        let alone = self.others.is_none_or(|others| now.duration_since(others) > Self::REMEMBERED);
        if alone || self.owed < Self::LEAST { Duration::ZERO } else { std::mem::take(&mut self.owed) }
    }

    /// Whether it is time to look for others.
    pub(super) fn wants_to_know(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|asked| now.duration_since(asked) >= Self::LOOK);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// A number that changes with every commit of another.
    pub(super) fn heard(&mut self, version: u64, now: Instant) {
        if self.version.replace(version).is_some_and(|before| before != version) {
            self.others = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_lock_is_left_alone_half_as_long_as_it_was_held() {
        let begun = Instant::now();
        let mut pauses = Pauses { others: Some(begun), ..Pauses::default() };
        pauses.owe(begun, begun + ms(3));
        assert_eq!(pauses.due(begun + ms(3)), Duration::ZERO);
        pauses.owe(begun + ms(3), begun + ms(8));
        assert_eq!(pauses.due(begun + ms(8)), ms(4));
        // Nobody had it for a while.
        pauses.owe(begun + ms(20), begun + ms(30));
        assert_eq!(pauses.due(begun + ms(40)), Duration::ZERO);
        pauses.owe(begun + ms(40), begun + ms(5000));
        assert_eq!(pauses.due(begun + ms(5000)), ms(50));
    }

    #[test]
    fn nobody_is_let_in_where_nobody_else_writes() {
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        let held = |pauses: &mut Pauses, at: Duration| {
            pauses.owe(begun + at, begun + at + ms(20));
            pauses.due(begun + at + ms(20))
        };
        pauses.heard(7, begun);
        pauses.heard(7, begun + ms(20));
        assert_eq!(held(&mut pauses, ms(20)), Duration::ZERO);
        pauses.heard(8, begun + ms(40));
        assert!(held(&mut pauses, ms(40)) >= ms(10));
        assert_eq!(held(&mut pauses, ms(11_000)), Duration::ZERO);
    }

    #[test]
    fn others_are_looked_for_now_and_then() {
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        let asked = [0, 10, 20, 30].map(|at| pauses.wants_to_know(begun + ms(at)));
        assert_eq!(asked, [true, false, true, false]);
    }
}
