//! How much a plugin may log over time: a burst, which is refilled slowly.
//!
//! What exceeds it is counted, and told once per interval; each send has limits of its own in `logs`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The allowance of a loaded plugin, shared by all of its sends.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<Account>);

#[derive(Debug)]
struct Account {
    left: usize,
    refilled: Instant,
    dropped: u64,
    told: Option<Instant>,
}

impl Allowance {
    const BURST: usize = 16 << 20;
    const PER_SECOND: usize = 1 << 20;
    /// What the relay adds to a record.
    const OVERHEAD: usize = 128;
    /// At most once in this time it is told how many records were dropped.
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Takes the bytes of a record, if there are that many left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let mut account = self.account();
        let refill = account.refilled.elapsed().as_millis().saturating_mul(Self::PER_SECOND as u128) / 1000;
        // Less would be rounded away.
        if refill >= 1024 {
            account.left = account.left.saturating_add(usize::try_from(refill).unwrap_or(usize::MAX)).min(Self::BURST);
            account.refilled = Instant::now();
        }
        let left = account.left.checked_sub(bytes + Self::OVERHEAD);
        account.left = left.unwrap_or(account.left);
        left.is_some()
    }

    /// Counts a record that is dropped.
    pub(super) fn miss(&self) {
        self.account().dropped += 1;
    }

    /// Returns how many records were dropped since this was told, if it is time to tell.
    pub(super) fn untold(&self) -> Option<u64> {
        let mut account = self.account();
        if account.dropped == 0 || account.told.is_some_and(|told| told.elapsed() < Self::INTERVAL) {
            return None;
        }
        account.told = Some(Instant::now());
        Some(std::mem::take(&mut account.dropped))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self(Mutex::new(Account { left: Self::BURST, refilled: Instant::now(), dropped: 0, told: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_refilled_slowly() {
        let allowance = Allowance::default();
        assert!(allowance.take(Allowance::BURST - Allowance::OVERHEAD));
        assert!(!allowance.take(500_000));
        allowance.account().refilled = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(allowance.take(900_000) && !allowance.take(900_000));
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
        allowance.account().told = Instant::now().checked_sub(Allowance::INTERVAL);
        assert_eq!(allowance.untold(), Some(2));
    }
}
