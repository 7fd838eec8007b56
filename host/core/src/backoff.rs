//! The delay between the attempts to send a signal.
//!
//! Pure: the caller passes the random number, and waits. Next: [`settlement`](crate::settlement), which
//! applies it.

use std::time::Duration;

/// Exponential backoff with jitter. [`Backoff::new`] rejects inconsistent values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
}

impl Backoff {
    /// Creates a backoff. Requires 0 < `first` ≤ `max`, 1 ≤ `factor` ≤ 1,000,000, and `jitter` (the random
    /// share of the delay) within 0..=1.
    ///
    /// # Errors
    /// Names the offending value.
    pub fn new(first: Duration, factor: f64, max: Duration, jitter: f64) -> Result<Self, String> {
        if first.is_zero() {
            return Err("`first` must be longer than zero".into());
        }
        if first > max {
            return Err(format!("`first` ({first:?}) is longer than `max` ({max:?})"));
        }
        if !(1.0..=1e6).contains(&factor) {
            return Err(format!("`factor` must be at least 1, not {factor}"));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(format!("`jitter` must be between 0 and 1, not {jitter}"));
        }
        Ok(Self { first, factor, max, jitter })
    }

    /// Returns the delay after an attempt (1 is the first); `chance` is a random number in 0..1.
    ///
    /// Jitter only shortens the delay, which therefore never exceeds `max`.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let power = self.factor.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        let full = (self.first.as_secs_f64() * power).min(self.max.as_secs_f64());
        Duration::from_secs_f64(full * (1.0 - self.jitter * chance.clamp(0.0, 1.0)))
    }
}

impl Default for Backoff {
    /// 1 s, doubling up to 10 min, with a jitter of 20%.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(600), jitter: 0.2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(10), 0.0).unwrap();
        let delays: Vec<u64> = (1..=6).map(|n| backoff.delay(n, 0.5).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(10));
    }

    #[test]
    fn jitter_only_shortens_the_delay() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(800));
    }

    #[test]
    fn inconsistent_values_are_rejected() {
        let second = Duration::from_secs(1);
        assert!(Backoff::new(Duration::ZERO, 2.0, second, 0.0).is_err());
        assert!(Backoff::new(second * 2, 2.0, second, 0.0).is_err());
        assert!(Backoff::new(second, 0.5, second, 0.0).is_err());
        assert!(Backoff::new(second, f64::NAN, second, 0.0).is_err());
        assert!(Backoff::new(second, 2.0, second, 1.5).is_err());
    }
}
