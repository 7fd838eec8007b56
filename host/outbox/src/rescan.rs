//! When the scan of a type without an order starts over, to find what lies behind its position.
//!
//! Rows that are held stand in its way: a million dead letters take seconds to pass. So it passes them in slices,
//! looks at the end of the table in between, and the more it takes the less often it is done. Next: `claim`.

use std::time::{Duration, Instant};

/// How many keys one claim looks through at most, where rows are held.
pub(super) const SLICE: usize = 5000;

/// How long a scan may go on before it starts over to look for late commits.
pub(super) const SCAN_LIMIT: Duration = Duration::from_secs(5);

/// How many times as long as a pass takes nothing starts over; less if something is known to be behind.
const REST: u32 = 20;
const SHORT_REST: u32 = 4;

/// The passes over what lies behind the position of a scan.
#[derive(Debug, Default)]
pub(super) struct Rescans {
    current: Option<Pass>,
    /// When the scan began, or the last pass ended.
    since: Option<Instant>,
    /// When the last pass had begun.
    begun: Option<Instant>,
    passed: bool,
    /// The time spent on slices without a row to send: of the cheaper one of the last two passes (a lock may have stopped
    /// one), of the last one, and of the present one so far.
    cost: Duration,
    last: Option<Duration>,
    spent: Duration,
    /// Something is known to be behind.
    wanted: bool,
}

/// A pass over the table, up to where the scan stood.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) at: Option<String>,
    pub(super) until: Option<String>,
    begun: Instant,
}

impl Rescans {
    /// Something lies behind the position.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether it costs little to start over now.
    pub(super) fn may_begin(&self) -> bool {
        self.remaining(REST).is_zero()
    }

    /// Whether it is time to start over, at the latest.
    pub(super) fn is_due(&self) -> bool {
        let late = self.since.is_some_and(|since| since.elapsed() > SCAN_LIMIT) && self.may_begin();
        self.current.is_none() && (late || self.wanted_in() == Some(Duration::ZERO))
    }

    /// How long until a pass that is wanted may begin, or end.
    pub(super) fn wanted_in(&self) -> Option<Duration> {
        self.wanted.then(|| self.remaining(SHORT_REST))
    }

    /// How long until the next one is due, where they are put off.
    pub(super) fn due_in(&self) -> Option<Duration> {
        (!self.cost.is_zero()).then(|| self.remaining(REST))
    }

    fn remaining(&self, rest: u32) -> Duration {
        // Until the scan has been through the table once, what it has passed so far.
        let cost = if self.passed { self.cost } else { self.spent };
        self.since.map_or(Duration::ZERO, |since| (cost * rest).saturating_sub(since.elapsed()))
    }

    pub(super) fn begin(&mut self, until: Option<String>) {
        (self.wanted, self.spent) = (false, Duration::ZERO);
        self.current = Some(Pass { at: None, until, begun: Instant::now() });
    }

    /// The scan itself begins at the start.
    pub(super) fn start(&mut self) {
        self.wanted = false;
        self.since.get_or_insert_with(Instant::now);
    }

    /// The scan itself has passed rows, for so long; the first time that is a pass, too.
    pub(super) fn passed(&mut self, time: Duration) {
        if !self.passed {
            self.spent(time);
        }
    }

    /// The scan itself has come to the end of the table.
    pub(super) fn passed_once(&mut self) {
        if !self.passed {
            self.end();
        }
    }

    pub(super) fn current(&mut self) -> Option<&mut Pass> {
        self.current.as_mut()
    }

    /// So long nothing to send was found.
    pub(super) fn spent(&mut self, time: Duration) {
        self.spent += time;
    }

    /// Whether a pass has seen all that was there at this time.
    pub(super) fn has_seen(&self, time: Instant) -> bool {
        self.begun.is_some_and(|begun| begun >= time)
    }

    pub(super) fn end(&mut self) {
        self.begun = self.current.take().map(|pass| pass.begun);
        let spent = std::mem::take(&mut self.spent);
        self.cost = self.last.replace(spent).map_or(spent, |last| last.min(spent));
        (self.since, self.passed) = (Some(Instant::now()), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cost: Duration, wanted: bool) -> Rescans {
        let mut rescans = Rescans::default();
        rescans.begin(None);
        rescans.spent(cost);
        rescans.end();
        if wanted {
            rescans.want();
        }
        rescans
    }

    #[test]
    fn passes_without_held_rows_begin_whenever_they_are_wanted() {
        let cheap = after(Duration::ZERO, false);
        assert!(cheap.may_begin() && !cheap.is_due() && cheap.due_in().is_none());
        assert!(after(Duration::ZERO, true).is_due());
    }

    #[test]
    fn a_pass_that_was_stopped_costs_no_more_than_the_one_before() {
        let mut rescans = after(Duration::from_millis(10), false);
        for cost in [25_000, 10] {
            rescans.begin(None);
            rescans.spent(Duration::from_millis(cost));
            rescans.end();
            assert!(rescans.due_in().unwrap() <= Duration::from_millis(200));
        }
    }

    #[test]
    fn costly_passes_are_put_off() {
        let costly = after(Duration::from_secs(2), false);
        assert!(!costly.may_begin() && !costly.is_due() && costly.wanted_in().is_none());
        assert!(costly.due_in().unwrap() > Duration::from_secs(39));
        let wanted = after(Duration::from_secs(2), true);
        let wait = wanted.wanted_in().unwrap();
        assert!(!wanted.is_due() && wait > Duration::from_secs(7) && wait <= Duration::from_secs(8));
        // One that is going on is not begun again.
        let mut cheap = after(Duration::ZERO, true);
        cheap.begin(None);
        cheap.want();
        assert!(!cheap.is_due());
    }
}
