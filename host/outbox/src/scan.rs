//! Where the scan of a signal type stands, in memory, for all of its workers.
//!
//! A hint, and never more: to lose it costs a scan from the start, and no row. Next: `unordered` and `ordered`, which
//! scan; `rescan`, which decides when a scan starts over.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::SignalTable;
use super::active::RecordedClaims;
use super::claim::{Claimed, Taken};
use super::open::{HeldClaim, OpenClaim, Pace};
use super::place::Place;
use super::rescan::Rescans;

/// Where the scan of a signal type stands.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) position: Option<String>,
    /// The last key of the slice that the position is in, where rows are held.
    pub(super) slice: Option<String>,
    pub(super) rescans: Rescans,
    /// What is due again was claimed last.
    pub(super) due_last: bool,
    /// When the scan of an ordered type started over.
    pub(super) since: Option<Instant>,
    pub(super) open: Option<OpenClaim>,
    /// Where the scan of an ordered type stands: nothing before it is left to be claimed, as far as could be seen.
    pub(super) floor: Option<Place>,
    /// How many rows of an ordered type were held when its scan started over.
    pub(super) held: usize,
    /// When the last one that was due became due, at the last claim of an ordered type.
    pub(super) last_due: Option<i64>,
    /// There were dead letters at the last claim of an ordered type.
    pub(super) dead: bool,
    /// An ordered type was looked through in vain while others had these order keys: until then, it is not looked through
    /// again as long as these are claimed.
    pub(super) barren: Option<(HashSet<String>, Instant)>,
    /// When the rows that are on record as sent were last looked at, and up to which hold.
    pub(super) sent_seen: Option<Instant>,
    pub(super) sent_after: i64,
    pub(super) pace: Pace,
}

impl Scan {
    /// Whether there is a claim from which batches can be read.
    pub(super) fn is_open(&self, boundary: Option<&str>) -> bool {
        self.open.as_ref().is_some_and(|open| open.boundary.as_deref() == boundary)
    }

    /// Looks from the start next time: something may lie behind the position.
    pub(super) fn restart(&mut self) {
        self.rescans.want();
        (self.floor, self.since) = (None, Some(Instant::now()));
    }

    /// Counts a batch that was read at once.
    pub(super) fn read_from(&mut self, taken: Taken) -> Taken {
        if matches!(taken, Taken::Rows(..)) {
            self.pace.read();
        }
        taken
    }

    /// What is said where nothing is due.
    pub(super) fn nothing(&mut self, active: &RecordedClaims, ordered: bool) -> Claimed {
        let ahead = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        let others = active.claims.iter().filter(|claim| !claim.mine).map(|claim| ahead(claim.expires_in)).max();
        if others.is_some() && !ordered {
            // They may leave something behind.
            self.rescans.want();
        }
        // What was sent and is still there may be changed at any time.
        let sent = active.undeleted.map(|due| due.min(2000));
        let due = active.next_due.into_iter().chain(sent).min().map(ahead);
        let (due_in, wanted_in) = if ordered { (None, None) } else { (self.rescans.due_in(), self.rescans.wanted_in()) };
        Claimed::Nothing { due_in: due.into_iter().chain(due_in).min(), claimed_for: others.max(wanted_in) }
    }
}

impl SignalTable {
    /// Makes the next claim scan from the start, since signals behind the position may be claimed again, and prove
    /// that the claim it reads from still stands.
    pub async fn rescan(&self) {
        let mut scan = self.scan.lock().await;
        scan.restart();
        if let Some(open) = &scan.open {
            open.claim.doubt();
        }
    }

    /// A claim belongs to another relay now: it is read no more.
    pub(super) async fn lost(&self, claim: &HeldClaim) {
        let mut scan = self.scan.lock().await;
        if scan.open.take_if(|open| open.claim.token() == claim.token()).is_some() {
            scan.restart();
        }
    }
}
