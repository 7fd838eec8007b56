//! Batches: what one call of a plugin gets, and what its settle has to know of each signal.
//!
//! Next: `claim`, which makes them; `settle`, which ends them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::SignalTable;
use super::database::{Fetched, Row};
use super::hold::SentRow;
use super::identity::Seed;
use super::open::{HeldClaim, Holding, Live};
use signalbus_core::settlement::{Deferral, Settlement};
use signalbus_core::signal::Signal;

/// Signals claimed by this relay for a limited time.
#[derive(Debug)]
pub struct Batch {
    pub(super) claim: Arc<HeldClaim>,
    /// Its number within the claim.
    pub(super) part: usize,
    /// What the settle has to know of each signal.
    pub(super) marks: Vec<Mark>,
    pub signals: Vec<Signal>,
    /// Signals that cannot be sent, since a value of theirs cannot be decoded, and why: their positions, in order.
    pub broken: Vec<(usize, String)>,
    /// Two relays died while sending this one signal: it is charged an attempt instead of being sent.
    pub suspect: bool,
    /// The claim was taken over from a relay that died: the batch may have been sent already.
    pub taken_over: bool,
    /// The batch lies behind rows that were claimed earlier: its rows appeared late, or were left out.
    pub late: bool,
    /// It is as large as it may be, so that there may be more to be sent.
    pub full: bool,
}

/// The usual size of a type's rows, from which follows how many to read at once.
#[derive(Debug, Default)]
pub(super) struct RowBytes(AtomicUsize);

impl RowBytes {
    pub(super) fn learn(&self, rows: &Fetched) {
        if let Some(mean) = rows.bytes.checked_div(rows.len) {
            let known = self.0.load(Relaxed);
            self.0.store(if known == 0 { mean } else { (3 * known + mean) / 4 }, Relaxed);
        }
    }
}

impl SignalTable {
    /// How many rows fit into a batch, of up to `limit`.
    pub(super) fn fitting(&self, limit: usize) -> usize {
        let most = self.table.burst_bytes.and_then(|bytes| bytes.checked_div(self.row_bytes.0.load(Relaxed)));
        most.map_or(limit, |most| limit.min(most.max(1)))
    }
}

impl Batch {
    /// Creates the batch that was claimed under `token`.
    pub fn for_claim(token: &str, signals: Vec<Signal>) -> Self {
        let claim = HeldClaim::single(Live::new(token), &Holding::default(), Seed::random(), None);
        let (marks, broken) = (Vec::new(), Vec::new());
        Self { claim, part: 0, marks, signals, broken, suspect: false, taken_over: false, late: false, full: false }
    }

    pub(super) fn of(claim: Arc<HeldClaim>, rows: Vec<Row>, lane: &SignalTable) -> Self {
        let mut marks = Vec::with_capacity(rows.len());
        let mut broken = Vec::new();
        let rows = if lane.table.view.is_some() { once(rows) } else { rows };
        let signal = |mut row: Row| {
            broken.extend(row.broken.take().map(|reason| (marks.len(), reason)));
            let bound = row.hold.as_ref().filter(|hold| hold.holds(&lane.table, &row.values));
            let (seed, attempts) = bound.map_or((claim.seed, 0), |hold| (hold.seed, hold.attempts));
            marks.push(Mark { version: row.version, seed, held: row.hold.is_some(), tries: None });
            lane.identity.signal(row, seed, attempts)
        };
        let signals = rows.into_iter().map(signal).collect();
        Self { claim, part: 0, marks, signals, broken, suspect: false, taken_over: false, late: false, full: false }
    }

    /// Splits what was claimed into lanes of batches of up to `most` signals. The batches of a lane are sent one after the
    /// other; lanes, of which there are at most `width`, have no order key in common. Each batch is settled by itself, and
    /// ends the claim if it is the last.
    #[must_use]
    pub fn split(self, most: usize, width: usize) -> Vec<VecDeque<Self>> {
        let number = self.signals.len().div_ceil(most);
        if number < 2 {
            return vec![VecDeque::from([self])];
        }
        let lanes: Vec<Vec<Self>> = self.lanes(width.min(number)).into_iter().map(|lane| lane.evenly(most)).collect();
        lanes[0][0].claim.split(lanes.iter().map(Vec::len).sum());
        lanes.into_iter().map(VecDeque::from).collect()
    }

    /// Divides the order keys among up to so many lanes, as evenly as one can while going through the signals once.
    fn lanes(self, most: usize) -> Vec<Self> {
        let mut sizes = vec![0_usize; most];
        let mut lane_of: HashMap<&str, usize> = HashMap::new();
        let mut lanes = Vec::with_capacity(self.signals.len());
        for signal in &self.signals {
            let shortest = || (0..most).min_by_key(|&lane| sizes[lane]).unwrap_or_default();
            let lane = *lane_of.entry(&signal.order_key).or_insert_with(shortest);
            sizes[lane] += 1;
            lanes.push(lane);
        }
        let number = sizes.iter().filter(|size| **size > 0).count();
        self.divided(&lanes, number)
    }

    /// Divides the signals into batches of about the same size.
    fn evenly(self, most: usize) -> Vec<Self> {
        let number = self.signals.len().div_ceil(most);
        let size = self.signals.len().div_ceil(number);
        let batches: Vec<usize> = (0..self.signals.len()).map(|position| position / size).collect();
        self.divided(&batches, number)
    }

    /// Divides the signals into so many batches; `into` names the one of each.
    fn divided(self, into: &[usize], number: usize) -> Vec<Self> {
        if number < 2 {
            return vec![self];
        }
        let empty = || Self { claim: self.claim.clone(), marks: Vec::new(), signals: Vec::new(), broken: Vec::new(), ..self };
        let mut batches: Vec<Self> = (0..number).map(|_| empty()).collect();
        let mut marks = self.marks.into_iter();
        let mut broken = self.broken.into_iter().peekable();
        for (position, signal) in self.signals.into_iter().enumerate() {
            let batch = &mut batches[into[position]];
            batch.broken.extend(broken.next_if(|(at, _)| *at == position).map(|(_, reason)| (batch.signals.len(), reason)));
            batch.marks.extend(marks.next());
            batch.signals.push(signal);
        }
        batches
    }

    /// So many batches that were claimed with it are not sent: its settle ends the claim, and leaves them.
    pub fn leave(&self, batches: usize) {
        self.claim.leave(batches);
    }

    /// The positions of the signals that can be sent. If a dead letter holds back what is behind it, so does a broken one.
    #[must_use]
    pub fn sendable(&self, holds_dead: bool) -> Vec<usize> {
        let mut held: HashSet<&str> = HashSet::new();
        let mut broken = self.broken.iter().map(|(position, _)| *position).peekable();
        let mut sendable = Vec::with_capacity(self.signals.len());
        for (position, signal) in self.signals.iter().enumerate() {
            if broken.next_if_eq(&position).is_some() {
                held.insert(&signal.order_key);
            } else if !(holds_dead && held.contains(signal.order_key.as_str())) {
                sendable.push(position);
            }
        }
        sendable
    }

    /// The same settlement, with what it does not name held until its next attempt, which is due at once, or with the
    /// signal that it waits for in an `ordered` type. No attempt is charged.
    pub(super) fn with_rest_held(&self, settlement: &Settlement, ordered: bool) -> Settlement {
        let held =
            settlement.defer.iter().map(|deferral| deferral.index).chain(settlement.bury.iter().map(|burial| burial.index));
        let named: HashSet<usize> = held.chain(settlement.delete.iter().copied()).collect();
        let mut delays: HashMap<&str, Duration> = HashMap::new();
        for deferral in settlement.defer.iter().filter(|_| ordered) {
            let delay = delays.entry(&self.signals[deferral.index].order_key).or_default();
            *delay = deferral.delay.max(*delay);
        }
        let rest = (0..self.signals.len()).filter(|index| !named.contains(index));
        let held = rest.map(|index| Deferral {
            index,
            attempts: self.signals[index].attempt.saturating_sub(1),
            delay: delays.get(self.signals[index].order_key.as_str()).copied().unwrap_or_default(),
            reason: "its batch was interrupted".to_owned(),
        });
        Settlement { defer: settlement.defer.iter().cloned().chain(held).collect(), ..settlement.clone() }
    }

    /// Rows that were sent, and are to be deleted.
    pub(super) fn sent(rows: Vec<(Row, SentRow)>) -> Self {
        let mut batch = Self::for_claim("", Vec::with_capacity(rows.len()));
        for (Row { key, values, version, .. }, sent) in rows {
            let tries = Some((sent.hold.attempts, sent.since));
            batch.marks.push(Mark { version, seed: sent.hold.seed, held: true, tries });
            batch.signals.push(Signal { id: String::new(), key, order_key: sent.order_key, attempt: 0, values });
        }
        batch
    }
}

/// The first of the rows with each key. A view that shows a row twice is at fault, and so is its row.
fn once(rows: Vec<Row>) -> Vec<Row> {
    let mut once: Vec<Row> = Vec::with_capacity(rows.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        if let Some(&place) = places.get(&row.key) {
            once[place].broken = Some("the view shows this row more than once".to_owned());
            continue;
        }
        places.insert(row.key.clone(), once.len());
        once.push(row);
    }
    once
}

/// What the settle has to know of a signal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) version: i64,
    pub(super) seed: Seed,
    /// There is a hold under its key.
    pub(super) held: bool,
    /// How often its deletion was tried, and since when, if it is on record as sent.
    pub(super) tries: Option<(u32, i64)>,
}
