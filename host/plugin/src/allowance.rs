//! How much plugins may log over time: a burst, which is refilled slowly.
//!
//! A half of it is shared out by signal type, so that those who log without pause leave the others their part; the other
//! half is for whoever asks. What exceeds it is counted, and told once per interval; each send has limits of its own in
//! `logs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The allowances of all signal types.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    /// What is for whoever asks.
    spare: Mutex<Bucket>,
    types: Mutex<HashMap<Arc<str>, Weak<Allowance>>>,
}

/// The allowance of a signal type, shared by all sends of its plugins.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    all: Arc<Allowances>,
    own: Mutex<Bucket>,
    dropped: Mutex<Dropped>,
}

#[derive(Debug, Default)]
struct Dropped {
    records: u64,
    told: Option<Instant>,
}

/// Bytes that are left, in parts of one in so many as share them.
#[derive(Debug)]
struct Bucket {
    left: usize,
    refilled: Instant,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { left: Self::BURST, refilled: Instant::now() }
    }
}

impl Bucket {
    const BURST: usize = 16 << 20;
    const PER_SECOND: usize = 2 << 20;

    /// Takes these bytes, if there are that many left of one part in `parts`.
    fn take(&mut self, bytes: usize, parts: usize) -> bool {
        let refill = self.refilled.elapsed().as_millis().saturating_mul((Self::PER_SECOND / parts) as u128) / 1000;
        // Less would be rounded away.
        if refill >= 1024 {
            self.left = self.left.saturating_add(usize::try_from(refill).unwrap_or(usize::MAX));
            self.refilled = Instant::now();
        }
        self.left = self.left.min(Self::BURST / parts);
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

impl Allowances {
    /// Returns the allowance of a signal type.
    pub(super) fn of(self: &Arc<Self>, signal_type: &str) -> Arc<Allowance> {
        let mut types = lock(&self.types);
        if let Some(known) = types.get(signal_type).and_then(Weak::upgrade) {
            return known;
        }
        types.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Allowance { all: self.clone(), ..Allowance::default() });
        types.insert(signal_type.into(), Arc::downgrade(&new));
        new
    }
}

impl Allowance {
    /// What the relay adds to a record.
    const OVERHEAD: usize = 128;
    /// At most once in this time it is told how many records were dropped.
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Takes the bytes of a record, if there are that many left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes + Self::OVERHEAD;
        // Every allowance holds them once, and so does the engine.
        let types = Arc::strong_count(&self.all).saturating_sub(1).max(1);
        lock(&self.own).take(bytes, types) || lock(&self.all.spare).take(bytes, 1)
    }

    /// Counts a record that is dropped.
    pub(super) fn miss(&self) {
        lock(&self.dropped).records += 1;
    }

    /// Returns how many records were dropped since this was told, if it is time to tell.
    pub(super) fn untold(&self) -> Option<u64> {
        let mut dropped = lock(&self.dropped);
        if dropped.records == 0 || dropped.told.is_some_and(|told| told.elapsed() < Self::INTERVAL) {
            return None;
        }
        dropped.told = Some(Instant::now());
        Some(std::mem::take(&mut dropped.records))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that is left, and returns how much that was.
    fn exhaust(allowance: &Allowance) -> usize {
        std::iter::repeat_n(1 << 10, 1 << 16).take_while(|bytes| allowance.take(bytes - Allowance::OVERHEAD)).sum()
    }

    fn pass(bucket: &Mutex<Bucket>, seconds: u64) {
        lock(bucket).refilled = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_burst_is_refilled_slowly() {
        let all = Arc::new(Allowances::default());
        let alone = all.of("a");
        assert!(exhaust(&alone) >= 2 * Bucket::BURST);
        pass(&alone.own, 1);
        pass(&all.spare, 1);
        let second = exhaust(&alone);
        assert!((4_100_000..4_300_000).contains(&second), "{second}");
    }

    /// However many log without pause, all together stay within the bounds, and another type has its part.
    #[test]
    fn a_part_is_kept_for_each_type() {
        let all = Arc::new(Allowances::default());
        let types: Vec<_> = (0..16).map(|n| all.of(&n.to_string())).collect();
        let floods = types[1..].iter().map(|allowance| exhaust(allowance)).sum::<usize>();
        assert!(floods <= 2 * Bucket::BURST + (1 << 20), "{floods}");
        assert!(exhaust(&types[0]) >= Bucket::BURST / 16);
        types.iter().for_each(|allowance| pass(&allowance.own, 1));
        pass(&all.spare, 1);
        let floods = types[1..].iter().map(|allowance| exhaust(allowance)).sum::<usize>();
        assert!(floods <= 4_300_000, "{floods}");
        assert!(exhaust(&types[0]) >= (120 << 10));
    }

    /// A plugin that replaces another one goes on with what that one has left.
    #[test]
    fn the_plugins_of_a_type_share_its_allowance() {
        let all = Arc::new(Allowances::default());
        let (first, second) = (all.of("a"), all.of("a"));
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &all.of("b")));
    }

    #[test]
    fn what_is_dropped_is_told_once_per_interval() {
        let allowance = Allowance::default();
        assert_eq!(allowance.untold(), None);
        allowance.miss();
        assert_eq!(allowance.untold(), Some(1));
        allowance.miss();
        allowance.miss();
        assert_eq!(allowance.untold(), None);
        lock(&allowance.dropped).told = Instant::now().checked_sub(Allowance::INTERVAL);
        assert_eq!(allowance.untold(), Some(2));
    }
}
