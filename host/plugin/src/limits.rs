//! What one call and one instance of a plugin may use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

/// What one call and one instance of a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest that one call of the plugin may take.
    pub timeout: Duration,
    /// Bytes of one instance: its linear memories and tables together. One call to the host can't
    /// carry more bytes than this either.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), memory: 64 << 20 }
    }
}

impl Limits {
    /// Timeouts that a send may use up before it leaves the remaining signals for another time.
    const PATIENCE: u32 = 4;

    /// After this time a send starts no further call; what it did not egress is `Held`.
    pub(super) fn patience(&self) -> Duration {
        self.timeout.saturating_mul(Self::PATIENCE)
    }

    /// The longest that a send takes once it has an instance: a claim should outlive it.
    pub fn longest_send(&self) -> Duration {
        self.patience().saturating_add(self.timeout)
    }
}

/// Memory asked for beyond the limit; a trap in the guest rather than a failed `memory.grow`, since
/// most languages' runtimes turn the latter into an abort without a reason.
#[derive(Debug, thiserror::Error)]
#[error("plugin exceeded its memory limit of {}", Size(self.limit))]
pub(super) struct MemoryExhausted {
    limit: usize,
}

/// Whether a guest computes for longer than others should wait. Time in which it only waits itself
/// does not count.
pub(super) struct Load {
    begun: Instant,
    /// When it was last let run, in microseconds.
    resumed: AtomicU64,
    heavy: AtomicBool,
}

impl Load {
    /// A little less than a tick of the engine's clock.
    const MOST: u64 = 8_000;

    /// It runs from now on.
    pub(super) fn resume(&self) {
        self.resumed.store(self.now(), Relaxed);
    }

    /// It still runs.
    pub(super) fn tick(&self) {
        if self.now().saturating_sub(self.resumed.load(Relaxed)) >= Self::MOST {
            self.heavy.store(true, Relaxed);
        }
    }

    pub(super) fn is_heavy(&self) -> bool {
        self.heavy.load(Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Default for Load {
    fn default() -> Self {
        Self { begun: Instant::now(), resumed: AtomicU64::new(0), heavy: AtomicBool::new(false) }
    }
}

/// Counts what one store has allocated.
pub(super) struct Meter {
    limit: usize,
    used: usize,
    last: usize,
}

impl Meter {
    const INSTANCES: usize = 256;
    pub(super) const MEMORIES: usize = 8;
    pub(super) const TABLES: usize = 64;

    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, last: 0 }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn grow(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        self.last = bytes;
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limit {
            return Err(MemoryExhausted { limit: self.limit }.into());
        }
        Ok(true)
    }

    fn take_back(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last));
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        self.grow(elements.saturating_mul(size_of::<usize>()))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        Self::INSTANCES
    }

    fn memories(&self) -> usize {
        Self::MEMORIES
    }

    fn tables(&self) -> usize {
        Self::TABLES
    }
}

/// Bytes as people write them: `64 MiB`, or the plain number where that would round.
struct Size(usize);

impl std::fmt::Display for Size {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => write!(formatter, "{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => write!(formatter, "{} KiB", bytes >> 10),
            bytes => write!(formatter, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_tables_count_together() {
        let mut meter = Meter::new(1 << 20);
        assert!(meter.memory_growing(0, 1 << 19, None).unwrap());
        assert!(meter.memory_growing(0, (1 << 19) - 64, None).unwrap());
        assert!(meter.table_growing(0, 8, None).unwrap());
        let error = meter.table_growing(8, 9, None).unwrap_err();
        assert_eq!(error.to_string(), "plugin exceeded its memory limit of 1 MiB");
    }

    #[test]
    fn a_growth_that_failed_is_not_counted() {
        let mut meter = Meter::new(1 << 20);
        meter.memory_growing(0, 1 << 20, None).unwrap();
        meter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert!(meter.memory_growing(0, 1 << 20, None).unwrap());
    }

    #[test]
    fn sizes_are_never_rounded() {
        assert_eq!(Size(64 << 20).to_string(), "64 MiB");
        assert_eq!(Size(1536 << 10).to_string(), "1536 KiB");
        assert_eq!(Size(1000).to_string(), "1000 bytes");
    }

    #[test]
    fn only_computing_is_heavy() {
        let load = Load { begun: Instant::now().checked_sub(Duration::from_millis(50)).unwrap(), ..Load::default() };
        load.resume();
        load.tick();
        assert!(!load.is_heavy(), "it has waited for 50 ms, and computed for none");
        load.resumed.store(0, Relaxed);
        load.tick();
        assert!(load.is_heavy());
    }

    #[test]
    fn a_send_is_bounded() {
        assert_eq!(Limits::default().longest_send(), Duration::from_secs(150));
    }
}
