//! The limits of a call and an instance, and the counters that enforce them.
//!
//! No memory and no table of an instance may grow uncounted. `guest` installs the memory meter in each
//! store; `call` enforces the timeout.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signalbus_shares::{Share, Taken};
use wasmtime::ResourceLimiter;

/// The limits of one call and one instance of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time limit of one call.
    pub timeout: Duration,
    /// Maximum bytes of one instance: its linear memories and tables together. Also limits the bytes
    /// passed in one call to the host.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), memory: 64 << 20 }
    }
}

impl Limits {
    /// A send may spend this many timeouts before it defers the rest.
    const PATIENCE: u32 = 4;

    /// Returns the time after which a send starts no further call; the remaining signals are `Held`.
    pub(super) fn patience(&self) -> Duration {
        self.timeout.saturating_mul(Self::PATIENCE)
    }

    /// Returns how many bytes of signals a call takes; a larger signal has a call of its own. The rest of an
    /// instance's memory is for what the plugin makes of them.
    pub(super) fn room(&self) -> usize {
        self.memory / 4
    }
}

/// Returns the maximum size of each reason in an answer with this many: 1 MiB together, unless there are
/// very many.
pub(super) fn longest_reason(reasons: usize) -> usize {
    const TOGETHER: usize = 1 << 20;
    (TOGETHER / reasons.max(1)).clamp(128, 4 << 10)
}

/// The guest requested memory beyond its limit. This traps rather than fails `memory.grow`, because
/// most languages' runtimes turn a failed growth into an abort without a reason.
#[derive(Debug, thiserror::Error)]
#[error("plugin exceeded its memory limit of {}", Size(self.limit))]
pub(super) struct MemoryExhausted {
    limit: usize,
}

/// Detects a guest that computes for longer than others should wait. Time that it spends waiting does
/// not count.
pub(super) struct Load {
    begun: Instant,
    /// When the guest was last resumed, in microseconds since `begun`.
    resumed: AtomicU64,
    heavy: AtomicBool,
    /// Since when a guest waits for a processor, likewise; 0 if it does not.
    waiting: AtomicU64,
    waited: AtomicU64,
}

/// A guest waits.
pub(super) struct Wait<'a>(&'a Load);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Self(load) = self;
        let since = load.waiting.swap(0, Relaxed);
        load.waited.fetch_add(load.now().saturating_sub(since), Relaxed);
    }
}

impl Load {
    /// Microseconds of computing from which a guest is heavy: a little less than a tick of the engine's
    /// clock.
    const MOST: u64 = 8_000;

    /// Notes that the guest is resumed.
    pub(super) fn resume(&self) {
        self.resumed.store(self.now(), Relaxed);
    }

    /// Notes that the guest waits for a processor; the end of it is the end of what is returned.
    pub(super) fn wait(&self) -> Wait<'_> {
        self.waiting.store(self.now().max(1), Relaxed);
        Wait(self)
    }

    /// Returns for how long guests have waited for a processor. That is not charged to them.
    pub(super) fn waited(&self) -> Duration {
        let waiting = self.waiting.load(Relaxed);
        let now = if waiting == 0 { 0 } else { self.now().saturating_sub(waiting) };
        Duration::from_micros(self.waited.load(Relaxed) + now)
    }

    /// Notes that the guest is still running.
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
        let (resumed, waiting, waited) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { begun: Instant::now(), resumed, heavy: AtomicBool::new(false), waiting, waited }
    }
}

/// The time limit of a call. What it waits for a processor is no part of its time.
pub(super) struct Deadline {
    timeout: Duration,
    begun: Instant,
    load: Arc<Load>,
    /// For how long had been waited before.
    before: Duration,
}

impl Deadline {
    /// Begins the time of a call.
    pub(super) fn new(timeout: Duration, load: &Arc<Load>) -> Self {
        Self { timeout, begun: Instant::now(), load: load.clone(), before: load.waited() }
    }

    /// Returns for how long the call has waited for a processor.
    pub(super) fn waited(&self) -> Duration {
        self.load.waited().saturating_sub(self.before)
    }

    /// Returns how much of its time is left.
    pub(super) fn left(&self) -> Duration {
        (self.timeout + self.waited()).saturating_sub(self.begun.elapsed())
    }

    /// The same for what it calls, so that it can still answer.
    pub(super) fn left_for_calls(&self) -> Duration {
        self.left().saturating_sub(self.timeout / 10)
    }
}

/// A signal type's use of the processors. What takes little runs at once; the rest waits for its turn.
pub(super) struct Processors {
    turns: Share,
    number: u32,
    light: Mutex<Allowance>,
}

/// The time that a type may compute without a turn.
struct Allowance {
    left: Duration,
    refilled: Instant,
}

impl Processors {
    const BURST: Duration = Duration::from_millis(100);

    pub(super) fn new(turns: Share) -> Self {
        let number = std::thread::available_parallelism().map_or(1, |number| u32::try_from(number.get()).unwrap_or(u32::MAX));
        Self { turns, number, light: Mutex::new(Allowance { left: Self::BURST, refilled: Instant::now() }) }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<Taken> {
        self.turns.take(1).await
    }

    /// Notes time that was spent without a turn.
    pub(super) fn spend(&self, time: Duration) {
        let mut light = self.light();
        light.left = light.left.saturating_sub(time);
    }

    /// Whether the type has spent what it may without a turn: half of its share of the processors.
    pub(super) fn is_spent(&self) -> bool {
        let mut light = self.light();
        if light.left.is_zero() || light.left < Self::BURST / 2 {
            let refill = light.refilled.elapsed() * self.number / self.turns.members().max(1) / 2;
            light.left = (light.left + refill).min(Self::BURST);
            light.refilled = Instant::now();
        }
        light.left.is_zero()
    }

    /// Returns how long the type has been waiting for a turn.
    pub(super) fn waiting(&self) -> Duration {
        self.turns.waiting()
    }

    fn light(&self) -> MutexGuard<'_, Allowance> {
        self.light.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the memory that one store has allocated.
pub(super) struct Meter {
    limit: usize,
    used: usize,
    last: usize,
}

impl Meter {
    const INSTANCES: usize = 256;
    pub(super) const MEMORIES: u32 = 8;
    pub(super) const TABLES: u32 = 64;

    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, last: 0 }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
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
        Self::MEMORIES as usize
    }

    fn tables(&self) -> usize {
        Self::TABLES as usize
    }
}

/// Displays bytes as `64 MiB`, or as the plain number if that would round.
pub(super) struct Size(pub(super) usize);

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
    fn the_reasons_of_an_answer_are_bounded_together() {
        assert_eq!([0, 1, 256, 512, 10_000, usize::MAX].map(longest_reason), [4096, 4096, 4096, 2048, 128, 128]);
    }

    #[test]
    fn waiting_does_not_make_a_guest_heavy() {
        let load = Load { begun: Instant::now().checked_sub(Duration::from_millis(50)).unwrap(), ..Load::default() };
        load.resume();
        load.tick();
        assert!(!load.is_heavy(), "the guest has waited for 50 ms, but not computed");
        load.resumed.store(0, Relaxed);
        load.tick();
        assert!(load.is_heavy());
    }

    #[test]
    fn a_wait_for_a_processor_takes_nothing_from_a_calls_time() {
        let load = Arc::new(Load::default());
        let deadline = Deadline::new(Duration::from_secs(60), &load);
        let wait = load.wait();
        std::thread::sleep(Duration::from_millis(50));
        let waiting = deadline.left();
        drop(wait);
        std::thread::sleep(Duration::from_millis(50));
        let (waited, left) = (deadline.waited(), deadline.left());
        assert!(waited >= Duration::from_millis(50) && waiting > left, "{waited:?} {waiting:?} {left:?}");
        assert!(left < Duration::from_secs(60) && left + Duration::from_secs(1) > waiting);
        assert!(deadline.left_for_calls() < Duration::from_secs(54));
    }

    #[test]
    fn a_send_starts_no_call_after_four_timeouts() {
        assert_eq!(Limits::default().patience(), Duration::from_secs(120));
    }
}
