//! Claims that are held: what several batches of one claim share, and the claim that is being read.
//!
//! A claim covers about a second's work. It is read in parts, a batch each, without a write; each settle proves in
//! its own statement that the claim still stands, and the last one ends it. Next: `claim`, which opens claims and reads batches from them; `settle`, which ends them.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::FRESH;
use super::active::{Range, RecordedClaims};
use super::identity::Seed;

/// The most work that a claim covers.
const SPAN: Duration = Duration::from_secs(1);
/// The same in batches.
const MOST_BATCHES: usize = 50;

/// The claims that this process works on, by token.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Keeps a claim among those that this process works on. A claim of this process that is not among them was left
/// behind by an error, and is free to be taken at once.
#[derive(Debug)]
pub(super) struct Live(String);

impl Live {
    pub(super) fn new(token: &str) -> Self {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned());
        Self(token.to_owned())
    }

    /// Whether this process works on a claim.
    pub(super) fn is(token: &str) -> bool {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).contains(token)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// The claims of one signal type that its workers hold, by token: those that are renewed together.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding(Arc<Mutex<BTreeSet<String>>>);

impl Holding {
    pub(super) fn tokens(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// What was renewed together, last.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) begun: Instant,
    /// The claims that still stood.
    pub(super) tokens: HashSet<String>,
}

/// A claim that this relay holds.
#[derive(Debug)]
pub(super) struct HeldClaim {
    live: Live,
    holding: Holding,
    pub(super) seed: Seed,
    pub(super) begun: Instant,
    /// Its settles record which parts of it are settled.
    pub(super) tracked: bool,
    /// What its next holder begins with, if it is not finished with its batches.
    pub(super) rest: Option<Rest>,
    progress: Mutex<Progress>,
    tracking: Arc<tokio::sync::Mutex<()>>,
}

/// The part of a claim that is left to its next holder.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) from: Option<String>,
    pub(super) in_flight: usize,
    /// Not zero if its signals are to be sent one by one.
    pub(super) takeovers: u32,
}

#[derive(Debug)]
struct Progress {
    /// Batches that were read, and not settled.
    batches: usize,
    /// No more batches are read from it.
    closed: bool,
    /// Signals that are settled, of those that the claim's record counts.
    settled: usize,
    /// Something that may have been sent was left in place: the claim must keep its seed.
    leftovers: bool,
    /// The ranges of the batches, and whether they are settled; empty unless the claim is tracked.
    parts: Vec<(Range, bool)>,
    renewed: Instant,
    doubted: bool,
}

impl HeldClaim {
    /// A claim from which batches are to be read.
    pub(super) fn open(live: Live, holding: &Holding, seed: Seed, tracked: bool) -> Arc<Self> {
        Self::new(live, holding, seed, tracked, None, Progress::new(0, false))
    }

    pub(super) fn token(&self) -> &str {
        &self.live.0
    }

    /// A claim with one batch.
    pub(super) fn single(live: Live, holding: &Holding, seed: Seed, rest: Option<Rest>) -> Arc<Self> {
        Self::new(live, holding, seed, false, rest, Progress::new(1, true))
    }

    fn new(live: Live, holding: &Holding, seed: Seed, tracked: bool, rest: Option<Rest>, progress: Progress) -> Arc<Self> {
        holding.0.lock().unwrap_or_else(PoisonError::into_inner).insert(live.0.clone());
        let (holding, progress, tracking) = (holding.clone(), Mutex::new(progress), Arc::default());
        Arc::new(Self { live, holding, seed, begun: Instant::now(), tracked, rest, progress, tracking })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be renewed before more is read.
    pub(super) fn is_doubtful(&self) -> bool {
        let progress = self.progress();
        progress.doubted || progress.renewed.elapsed() > FRESH
    }

    pub(super) fn renewed(&self) {
        self.renewed_at(Instant::now());
    }

    pub(super) fn renewed_at(&self, at: Instant) {
        let mut progress = self.progress();
        (progress.renewed, progress.doubted) = (at, false);
    }

    /// One more batch is looked for: until it is settled or there is none, no settle ends the claim. If it joins, the claim's
    /// record counts what it has now, and what joins.
    pub(super) fn expect(&self) {
        let mut progress = self.progress();
        progress.batches += 1;
        progress.settled = 0;
    }

    /// The batch that was looked for is not sent. Returns whether nothing of the claim is in flight any more.
    pub(super) fn expect_no_more(&self) -> bool {
        let mut progress = self.progress();
        progress.batches = progress.batches.saturating_sub(1);
        progress.closed && progress.batches == 0
    }

    /// It is renewed before it is read again.
    pub(super) fn doubt(&self) {
        self.progress().doubted = true;
    }

    /// A batch was read from this range. Returns its number.
    pub(super) fn handed_out(&self, range: Range) -> usize {
        let mut progress = self.progress();
        progress.batches += 1;
        if self.tracked {
            progress.parts.push((range, false));
        }
        progress.parts.len().saturating_sub(1)
    }

    /// Waits until nobody else records what is settled of it, up to the commit: what one records contains all the rest.
    pub(super) async fn tracking(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.tracking.clone().lock_owned().await
    }

    /// Returns where the claim begins once this part is settled, and what is settled of it further on.
    pub(super) fn settled_with(&self, part: usize) -> (Option<String>, Vec<Range>) {
        let parts = &self.progress().parts;
        let settled = |n: &usize| *n == part || parts[*n].1;
        let first = (0..parts.len()).take_while(settled).count();
        let from = match first.checked_sub(1) {
            Some(last) => Some(parts[last].0.1.clone()),
            None => parts[0].0.0.clone(),
        };
        (from, (first..parts.len()).filter(settled).map(|n| parts[n].0.clone()).collect())
    }

    /// One of its batches is split, into so many.
    pub(super) fn split(&self, batches: usize) {
        self.progress().batches += batches - 1;
    }

    /// How many signals of other batches are settled.
    pub(super) fn settled_signals(&self) -> usize {
        self.progress().settled
    }

    /// Of what was split, so many batches are not sent.
    pub(super) fn leave(&self, batches: usize) {
        let mut progress = self.progress();
        progress.leftovers |= batches > 0;
        progress.batches = progress.batches.saturating_sub(batches);
    }

    /// No more batches are read. Returns whether nothing of it is in flight, so that it is to be ended.
    pub(super) fn close(&self) -> bool {
        let mut progress = self.progress();
        progress.closed = true;
        progress.batches == 0
    }

    /// Whether the settle of one batch ends the claim.
    pub(super) fn ends_with_this(&self) -> bool {
        let progress = self.progress();
        progress.closed && progress.batches == 1
    }

    pub(super) fn has_leftovers(&self) -> bool {
        self.progress().leftovers
    }

    /// A batch was settled, maybe in part: so many of its signals. Returns whether nothing of the claim is in flight any more.
    pub(super) fn settled(&self, part: usize, signals: usize, leftovers: bool) -> bool {
        let mut progress = self.progress();
        progress.settled += signals;
        if let Some(part) = progress.parts.get_mut(part) {
            part.1 = !leftovers;
        }
        progress.batches = progress.batches.saturating_sub(1);
        progress.leftovers |= leftovers;
        progress.closed && progress.batches == 0
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        self.holding.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.live.0);
    }
}

impl Progress {
    fn new(batches: usize, closed: bool) -> Self {
        Self { batches, closed, settled: 0, leftovers: false, parts: Vec::new(), renewed: Instant::now(), doubted: false }
    }
}

/// The claim from which batches are being read.
#[derive(Debug)]
pub(super) struct OpenClaim {
    pub(super) claim: Arc<HeldClaim>,
    /// What is still to be read, a batch each; never empty.
    pub(super) parts: VecDeque<Range>,
    /// What it must leave out.
    pub(super) active: Arc<RecordedClaims>,
    pub(super) late: bool,
    /// The highest key that may be sent, as it was given.
    pub(super) boundary: Option<String>,
}

/// How many batches the next claim covers: about what was sent in the last second.
#[derive(Debug)]
pub(super) struct Pace {
    batches: usize,
    opened: Instant,
    read: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batches: 0, opened: Instant::now(), read: 0 }
    }
}

impl Pace {
    /// A batch was read.
    pub(super) fn read(&mut self) {
        self.read += 1;
    }

    /// Nothing was found: whatever comes next, there is little of it.
    pub(super) fn idle(&mut self) {
        *self = Self::default();
    }

    /// Returns the number of batches for a claim that is opened now. It grows step by step.
    pub(super) fn next(&mut self, now: Instant) -> usize {
        let passed = now.duration_since(self.opened).max(Duration::from_millis(1));
        let read = SPAN * u32::try_from(self.read).unwrap_or(u32::MAX);
        let per_second = usize::try_from(read.as_millis() / passed.as_millis()).unwrap_or(usize::MAX);
        let batches = per_second.min(2 * self.batches).clamp(1, MOST_BATCHES);
        *self = Self { batches, opened: now, read: 0 };
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_grow_step_by_step_to_about_a_second() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut claims = Vec::new();
        for _ in 0..8 {
            let batches = pace.next(now);
            claims.push(batches);
            (0..batches).for_each(|_| pace.read());
            now += Duration::from_millis(50) * u32::try_from(batches).unwrap();
        }
        assert_eq!(claims, [1, 2, 4, 8, 16, 20, 20, 20]);
        // A slow plugin.
        assert_eq!(pace.next(now + Duration::from_secs(30)), 1);
    }

    #[test]
    fn a_tracked_claim_knows_what_is_settled() {
        let claim = HeldClaim::open(Live::new("t"), &Holding::default(), Seed::random(), true);
        let range = |from: &str, to: &str| (Some(from.to_owned()), to.to_owned());
        let parts = [range("0", "5"), range("5", "9"), range("9", "14")].map(|range| claim.handed_out(range));
        assert_eq!(parts, [0, 1, 2]);
        assert_eq!(claim.settled_with(1), (Some("0".into()), vec![range("5", "9")]));
        claim.settled(1, 9, false);
        assert_eq!(claim.settled_with(2), (Some("0".into()), vec![range("5", "9"), range("9", "14")]));
        claim.settled(2, 3, true);
        assert_eq!(claim.settled_with(0), (Some("9".into()), vec![]));
    }

    #[test]
    fn the_last_settle_ends_a_claim() {
        let claim = HeldClaim::open(Live::new("t"), &Holding::default(), Seed::random(), false);
        claim.handed_out((None, "5".into()));
        claim.handed_out((Some("5".into()), "9".into()));
        assert!(!claim.settled(0, 5, false) && !claim.ends_with_this());
        assert!(!claim.close() && claim.ends_with_this());
        assert!(claim.settled(1, 2, true) && claim.settled_signals() == 7 && claim.has_leftovers());
    }
}
