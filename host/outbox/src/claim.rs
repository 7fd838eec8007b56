//! Claiming: takes due rows for a limited time, in one short transaction that locks no row of a user.
//!
//! A claim of an unordered type is a range of keys, about a second's work (see `open`). The position where the next
//! scan starts is kept in memory and is only a hint: the recorded claims alone keep relays apart, so losing it costs
//! one scan from the start and never a row. At the end of the table, and every few seconds, the scan starts over,
//! which finds rows that committed late and rows with random keys.
//!
//! An ordered type is scanned from its floor: whatever is not sent lies behind the first row of some claim. A signal
//! that is claimed or deferred holds back every signal with the same order key; without `order_key`, every signal. When
//! one is due again, and every few seconds, the scan starts over. Next: `window`, then `settle`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::active::{ClaimRecord, Range, RecordedClaims};
use super::batch::Batch;
use super::database::{Fetched, Purpose, Row, number};
use super::open::{HeldClaim, Live, OpenClaim, Pace, Rest};
use super::place::Place;
use super::rescan::{Rescans, SCAN_LIMIT};
use super::sql::{Arg, Sql};
use super::takeover::TakenOver;
use super::window::Window;
use super::{Cause, Error, FRESH, LEASE, SignalTable, Worker, millis};

/// How often to look whether the rows that are on record as sent are still what was sent, and at how many at once.
const SENT_INTERVAL: Duration = Duration::from_secs(1);
const SENT_AT_ONCE: usize = 1000;
/// Among how many batches a claim first looks for order keys that no claim has.
const NEAR: usize = 4;
/// A search for order keys that no claim has goes through the whole table if there are none, and takes no more than one
/// part in so many of the time.
const BARREN: u32 = 20;

/// How long a claim waits for others that claim.
const LANE_PATIENCE: Duration = Duration::from_secs(5);

/// The result of a claim.
#[derive(Debug)]
pub enum Claimed {
    Batch(Batch),
    /// Nothing is due.
    Nothing {
        /// Time until the earliest deferred signal is due, or until rows that were sent and are still there are to be
        /// looked at.
        due_in: Option<Duration>,
        /// Time until the last claim of another relay expires, if it is not settled before; or until what may be left
        /// behind is looked for.
        claimed_for: Option<Duration>,
    },
}

/// What a transaction took, before it is decoded.
pub(super) enum Taken {
    Rows(Taking, Fetched),
    /// A range whose rows are still to be read, part by part.
    Range(Taking, RecordedClaims, VecDeque<Range>),
    Nothing(Claimed),
    /// There was nothing, and there is more to look through.
    Again,
}

pub(super) struct Taking {
    pub(super) claim: ClaimRecord,
    /// From before it is recorded on.
    pub(super) live: Live,
    /// Whether the side table has the claim already.
    pub(super) recorded: bool,
    pub(super) rest: Option<Rest>,
    pub(super) suspect: bool,
    pub(super) taken_over: bool,
    pub(super) late: bool,
}

impl Taking {
    pub(super) fn new(claim: ClaimRecord, late: bool) -> Self {
        Self { live: Live::new(&claim.token), claim, recorded: false, rest: None, suspect: false, taken_over: false, late }
    }
}

/// Where the scan of an unordered type stands.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) position: Option<String>,
    /// The last key of the slice that the position is in, where rows are held.
    pub(super) slice: Option<String>,
    pub(super) rescans: Rescans,
    /// What is due again was claimed last.
    pub(super) due_last: bool,
    /// When the scan of an ordered type started over.
    since: Option<Instant>,
    pub(super) open: Option<OpenClaim>,
    /// Where the scan of an ordered type stands: nothing before it is left to be claimed, as far as could be seen.
    floor: Option<Place>,
    /// There were dead letters at the last claim of an ordered type.
    dead: bool,
    /// An ordered type was looked through in vain while others had these order keys: until then, it is not looked through
    /// again as long as these are claimed.
    barren: Option<(HashSet<String>, Instant)>,
    /// When the rows that are on record as sent were last looked at, and up to which hold.
    sent_seen: Option<Instant>,
    sent_after: i64,
    pub(super) pace: Pace,
}

impl Worker<'_> {
    /// Claims up to `limit` due rows; with `boundary`, none with a higher key.
    ///
    /// # Errors
    /// The database's error. Nothing was claimed, or it can be claimed again once the lease is over.
    pub async fn claim(&mut self, limit: usize, boundary: Option<&str>) -> Result<Claimed, Error> {
        let limit = self.lane.fitting(limit);
        let claimed = match self.claim_any(limit, boundary).await {
            // A column, or the table itself, may be gone.
            Err(error @ Error::Refused { cause: Cause::Final, .. }) => Err(self.altered().await.unwrap_or(error)),
            claimed => claimed,
        };
        self.ended(claimed).await
    }

    /// Ends what an error has left of a transaction: its connection may be the only one, and whoever waits for it may have
    /// what this worker waits for next.
    pub(super) async fn ended<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            let _ = self.session.rollback().await;
        }
        result
    }

    /// Looks whether the table was altered.
    async fn altered(&mut self) -> Option<Error> {
        self.session.begin(Purpose::Read).await.ok()?;
        let same = self.same_shape().await;
        self.session.commit().await.ok()?;
        same.err().filter(Error::is_altered)
    }

    /// The table must still be what it was when it was opened.
    async fn same_shape(&mut self) -> Result<(), Error> {
        let shape = &self.lane.shape;
        let rows = self.session.rows(self.lane.statement(&shape.text, &shape.args)).await?;
        self.lane.expect_shape(rows.first().and_then(|row| row[0].as_ref()))
    }

    /// Looks, now and then, whether rows that are on record as sent are gone or were changed. Returns whether any was.
    async fn look_after_sent(&mut self) -> Result<bool, Error> {
        let mut scan = self.lane.scan.lock().await;
        if !std::mem::take(&mut self.sent) || scan.sent_seen.is_some_and(|seen| seen.elapsed() < SENT_INTERVAL) {
            return Ok(false);
        }
        scan.sent_seen = Some(Instant::now());
        let after = scan.sent_after;
        drop(scan);
        let (next, found) = self.lane.sweep(after, SENT_AT_ONCE).await?;
        self.lane.scan.lock().await.sent_after = next.unwrap_or_default();
        Ok(found)
    }

    async fn claim_any(&mut self, limit: usize, boundary: Option<&str>) -> Result<Claimed, Error> {
        let begun = Instant::now();
        loop {
            self.delete_sent().await?;
            while self.lane.scan.lock().await.is_open(boundary) {
                if let Some(batch) = self.read_on(limit, boundary).await? {
                    return Ok(Claimed::Batch(batch));
                }
            }
            // Always before the connection: there may be only one.
            let mut scan = self.lane.scan.lock().await;
            if scan.is_open(boundary) {
                // Another worker was faster.
                continue;
            }
            self.session.begin(Purpose::Write).await?;
            let taken = match self.take_and_record(&mut scan, limit, boundary).await {
                Ok(taken) => taken,
                Err(error) => {
                    let _ = self.session.rollback().await;
                    drop(scan);
                    // Relays take turns.
                    if error.is_passing() && begun.elapsed() < LANE_PATIENCE {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                    return Err(error);
                }
            };
            let recorded = Instant::now();
            let (taking, rows) = match taken {
                Taken::Nothing(_) if !self.undeleted.is_empty() => continue,
                Taken::Again => {
                    drop(scan);
                    tokio::task::yield_now().await;
                    continue;
                }
                Taken::Nothing(nothing) => {
                    scan.pace.idle();
                    drop(scan);
                    if self.look_after_sent().await? {
                        continue;
                    }
                    return Ok(nothing);
                }
                Taken::Rows(taking, rows) => (taking, rows),
                Taken::Range(taking, active, parts) => {
                    let opened = self.lane.opened(taking, active, parts, boundary);
                    self.open(scan, opened).await?;
                    continue;
                }
            };
            drop(scan);
            // Yield, so that a worker waiting for the lane is not stuck behind our decoding.
            tokio::task::yield_now().await;
            let Taking { claim, live, rest, suspect, taken_over, late, .. } = taking;
            let claim = HeldClaim::single(live, claim.seed, rest);
            let full = rows.is_full(limit);
            let batch = Batch { suspect, taken_over, late, full, ..Batch::of(claim, rows.all(), self.lane) };
            // Where reading took long, the claim may be another's by now.
            if recorded.elapsed() <= FRESH || self.renew(&batch).await? {
                return Ok(Claimed::Batch(batch));
            }
        }
    }

    /// Opens a claim, from which every worker reads.
    async fn open(&mut self, mut scan: MutexGuard<'_, Scan>, claim: OpenClaim) -> Result<(), Error> {
        let before = scan.open.replace(claim);
        if before.is_some() {
            scan.rescans.want();
        }
        drop(scan);
        // It was opened for another boundary.
        match before.filter(|before| before.claim.close()) {
            Some(before) => self.end(&before.claim).await,
            None => Ok(()),
        }
    }

    /// Reads the next batch of the open claim, if there is one. Workers read at the same time, each a part of its own.
    async fn read_on(&mut self, limit: usize, boundary: Option<&str>) -> Result<Option<Batch>, Error> {
        let mut scan = self.lane.scan.lock().await;
        let Some(open) = scan.open.as_mut().filter(|open| open.boundary.as_deref() == boundary) else { return Ok(None) };
        let (claim, late) = (open.claim.clone(), open.late);
        if claim.is_doubtful() && !self.renew_claim(&claim).await? {
            // Another relay has it now.
            scan.open = None;
            scan.restart();
            return Ok(None);
        }
        let Some(range) = open.parts.pop_front() else { return Ok(None) };
        let active = open.active.clone();
        let part = claim.handed_out(range.clone());
        scan.pace.read();
        if scan.open.take_if(|open| open.parts.is_empty()).is_some() {
            claim.close();
        }
        drop(scan);
        let window = Window { after: range.0.as_deref(), until: Some(&range.1), limit, ..Window::default() };
        let (rows, full) = match self.read_part(&window, &active).await {
            Ok(rows) => rows,
            Err(error) => {
                // It is read by whoever takes the claim up again.
                claim.settled(part, true);
                return Err(error);
            }
        };
        if rows.is_empty() {
            if claim.settled(part, false) {
                self.end(&claim).await?;
            }
            return Ok(None);
        }
        if full && rows.last().is_some_and(|row| row.key != range.1) {
            // Rows have appeared in the part, or they are large: the last ones are left for another claim.
            self.lane.scan.lock().await.restart();
        }
        Ok(Some(Batch { late, part, full, ..Batch::of(claim, rows, self.lane) }))
    }

    /// Reads the rows of a part, and whether there may be more of them.
    async fn read_part(&mut self, window: &Window<'_>, active: &RecordedClaims) -> Result<(Vec<Row>, bool), Error> {
        let mut limit = window.limit;
        loop {
            self.session.begin(Purpose::Read).await?;
            let rows = self.read(&Window { limit, ..*window }, active).await?;
            self.session.commit().await?;
            let (found, full, mut rows) = (rows.len, rows.is_full(limit), rows.all());
            if rows.len() < window.limit && rows.len() < found && found == limit && limit < window.widest() {
                // Rows of which nothing can be recorded are in the way.
                limit *= 16;
                continue;
            }
            rows.truncate(window.limit);
            return Ok((rows, full));
        }
    }

    /// Ends the claim that is being read, since nobody will go on reading it.
    ///
    /// # Errors
    /// The database's error; the claim expires.
    pub async fn close(&mut self) -> Result<(), Error> {
        let mut scan = self.lane.scan.lock().await;
        let open = scan.open.take();
        if open.is_some() {
            scan.rescans.want();
        }
        drop(scan);
        match open {
            Some(open) if open.claim.close() => self.end(&open.claim).await,
            _ => Ok(()),
        }
    }

    async fn take_and_record(&mut self, scan: &mut Scan, limit: usize, boundary: Option<&str>) -> Result<Taken, Error> {
        let taken = self.take(scan, limit, boundary).await?;
        if matches!(taken, Taken::Rows(..) | Taken::Range(..)) && !self.lane.database.dialect().is_embedded() {
            // It was when the claim began. But then it may have been altered before the rows were written and read.
            self.same_shape().await?;
        }
        match &taken {
            Taken::Rows(taking, _) | Taken::Range(taking, ..) => {
                if taking.recorded {
                    self.session.commit().await?;
                } else {
                    self.session.execute_and_commit(self.record(&taking.claim)).await?;
                }
            }
            Taken::Nothing(_) | Taken::Again => self.session.commit().await?,
        }
        Ok(taken)
    }

    async fn take(&mut self, scan: &mut Scan, limit: usize, boundary: Option<&str>) -> Result<Taken, Error> {
        let mut active = self.active().await?;
        self.sent = active.undeleted.is_some();
        if active.undeleted.is_some_and(|due| due <= 0) {
            self.undeleted = self.take_undeleted().await?;
        }
        let free = |claim: &ClaimRecord| claim.expires_in <= 0 || claim.is_left_behind();
        while let Some(n) = active.claims.iter().position(free) {
            let expired = active.claims.remove(n);
            match self.take_over(expired, &mut active, limit).await? {
                TakenOver::Rows(taken) => return Ok(*taken),
                TakenOver::Empty => {}
                TakenOver::Changed => active = self.active().await?,
            }
        }
        let taken = match self.lane.table.ordered() {
            true => self.take_ordered(scan, &active, limit, boundary).await?,
            false => self.take_unordered(scan, &mut active, limit, boundary).await?,
        };
        if taken.is_none() && boundary.is_none() && self.lane.table.ordered() {
            self.forget_orphans(&active).await?;
        }
        Ok(taken.unwrap_or_else(|| Taken::Nothing(scan.nothing(&active, self.lane.table.ordered()))))
    }

    /// Forgets the deferrals of rows that somebody else has deleted: when everything that is due
    /// was looked for and nothing was found, what is due has no row any more.
    async fn forget_orphans(&mut self, active: &RecordedClaims) -> Result<(), Error> {
        let Some((first, last)) = active.due else { return Ok(()) };
        // What is not due hides what is.
        if first > 0 || last > 0 || !active.claims.is_empty() {
            return Ok(());
        }
        let text = "DELETE FROM signalbus_hold WHERE signal_type = ? AND state = 'retry' AND due_at <= ?";
        let args = [self.lane.signal_type.name.as_str().into(), active.now.unwrap_or_default().into()];
        self.session.execute(self.lane.statement(text, &args)).await?;
        Ok(())
    }

    /// Locks the lane, then reads what is already spoken for.
    async fn active(&mut self) -> Result<RecordedClaims, Error> {
        let signal = Arg::from(self.lane.signal_type.name.as_str());
        let dialect = self.lane.database.dialect();
        if !dialect.for_update().is_empty() {
            let text = format!("SELECT signal_type FROM signalbus_lane WHERE signal_type = ?{}", dialect.for_update());
            self.session.rows(self.lane.statement(&text, std::slice::from_ref(&signal))).await?;
        }
        // One round trip: the last row tells about the holds, the others are claims.
        let text = "SELECT 0 AS kind, token, owner, from_key, to_key, order_keys, takeovers, \
             expires_at - NOW AS due, id_seed, in_flight, serial, settled_ranges, 0 AS last_due, 0 AS next_due, 0 AS clock, 0 AS dead, 0 AS undeleted, '' AS shape \
             FROM signalbus_claim WHERE signal_type = ? \
             UNION ALL SELECT 1, '', '', '', '', '', 0, \
             (SELECT min(due_at) FROM signalbus_hold WHERE signal_type = ? AND state = 'retry') - NOW, '', 0, 0, '', \
             (SELECT max(due_at) FROM signalbus_hold WHERE signal_type = ? AND state = 'retry') - NOW, \
             (SELECT min(due_at) FROM signalbus_hold WHERE signal_type = ? AND state = 'retry' AND due_at > NOW) - NOW, NOW, \
             CASE WHEN EXISTS (SELECT 1 FROM signalbus_hold WHERE signal_type = ? AND state = 'dead') THEN 1 ELSE 0 END, \
             (SELECT min(due_at) FROM signalbus_hold WHERE signal_type = ? AND state = 'sent') - NOW, (SHAPE) \
             ORDER BY 1, 8";
        let shape = &self.lane.shape;
        let args: Vec<Arg> = std::iter::repeat_n(signal, 6).chain(shape.args.iter().cloned()).collect();
        let mut rows = self.session.rows(self.lane.timed(&text.replace("SHAPE", &shape.text), &args)).await?;
        let deferrals = rows.pop().unwrap_or_default();
        self.lane.expect_shape(deferrals.get(17).and_then(Option::as_ref))?;
        let told = |n: usize| deferrals.get(n).filter(|cell| cell.is_some()).map(number::<i64>);
        Ok(RecordedClaims {
            due: told(7).zip(told(12)),
            next_due: told(13),
            now: told(14),
            dead: told(15) == Some(1),
            undeleted: told(16),
            claims: rows.iter().map(|row| ClaimRecord::read(row, &self.owner)).collect(),
        })
    }

    async fn take_ordered(
        &mut self,
        scan: &mut Scan,
        active: &RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let blocked = !active.claims.is_empty() || active.due.is_some_and(|(_, last)| last > 0);
        if self.lane.table.order_key.is_empty() && blocked {
            return Ok(None);
        }
        // What is due again lies behind the floor, and so does what was behind a dead letter.
        let due = active.due.is_some_and(|(first, _)| first <= 0);
        let freed = std::mem::replace(&mut scan.dead, active.dead) && self.lane.table.holds_dead;
        // Something may have committed late.
        let late = scan.since.is_none_or(|since| since.elapsed() > SCAN_LIMIT);
        scan.barren.take_if(|_| late);
        if due || freed || late {
            scan.restart();
        }
        let claimed: HashSet<&str> = active.claims.iter().flat_map(|claim| &claim.order_keys).map(String::as_str).collect();
        let still = |key: &String| claimed.contains(key.as_str());
        if scan.barren.as_ref().is_some_and(|(keys, until)| Instant::now() < *until && keys.iter().all(still)) {
            return Ok(Some(Taken::Nothing(scan.nothing(active, true))));
        }
        loop {
            let begun = Instant::now();
            let window = Window { until: boundary, limit, floor: scan.floor.as_ref(), ..Window::default() };
            if !claimed.is_empty() && scan.floor.is_some() {
                // To fill a batch with what few order keys have, would take all of the table, too.
                let rows = self.read(&Window { among: Some(NEAR * limit), ..window }, active).await?;
                if rows.len > 0 {
                    return self.claimed_in_order(scan, active, rows);
                }
            }
            let rows = self.read(&window, active).await?;
            if !claimed.is_empty() {
                let pause = (begun.elapsed() * BARREN).min(SCAN_LIMIT);
                let keys = || claimed.iter().map(|&key| key.to_owned()).collect();
                scan.barren = (rows.len == 0).then(|| (keys(), Instant::now() + pause));
            }
            if rows.len == 0 && scan.floor.is_some() && active.claims.is_empty() {
                scan.restart();
                continue;
            }
            if rows.len == 0 {
                return Ok(None);
            }
            return self.claimed_in_order(scan, active, rows);
        }
    }

    fn claimed_in_order(&self, scan: &mut Scan, active: &RecordedClaims, rows: Fetched) -> Result<Option<Taken>, Error> {
        let place = self.lane.place(&rows);
        scan.floor = place.clone().and_then(|place| self.lane.floor(active, place));
        let text = place.map(|place| place.to_text());
        self.claimed(active, text.as_deref(), rows, false)
    }

    pub(super) fn claimed(
        &self,
        active: &RecordedClaims,
        after: Option<&str>,
        rows: Fetched,
        late: bool,
    ) -> Result<Option<Taken>, Error> {
        let Some(last) = rows.last() else { return Ok(None) };
        let range = !self.lane.table.ordered();
        let mut order_keys = Vec::new();
        if !self.lane.table.order_key.is_empty() {
            order_keys = rows.all().into_iter().map(|row| row.order_key).collect();
            order_keys.sort_unstable();
            order_keys.dedup();
        }
        let from = after.map(str::to_owned);
        let to = range.then_some(last.key);
        let serial = active.next_serial();
        let claim = ClaimRecord { serial, in_flight: rows.len, ..ClaimRecord::new(from, to, order_keys) };
        Ok(Some(Taken::Rows(Taking::new(claim, late), rows)))
    }

    /// The statement that records a claim.
    fn record(&self, claim: &ClaimRecord) -> Sql {
        let text = "INSERT INTO signalbus_claim \
             (token, signal_type, serial, owner, id_seed, from_key, to_key, order_keys, in_flight, takeovers, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ? + NOW)";
        let order_keys = serde_json::json!(claim.order_keys).to_string();
        let args = [
            claim.token.as_str().into(),
            self.lane.signal_type.name.as_str().into(),
            claim.serial.into(),
            self.owner.as_str().into(),
            claim.seed.to_text().as_str().into(),
            claim.from.as_deref().into(),
            claim.to.as_deref().into(),
            order_keys.as_str().into(),
            i64::try_from(claim.in_flight).unwrap_or_default().into(),
            millis(LEASE).into(),
        ];
        self.lane.timed(text, &args)
    }
}

impl SignalTable {
    /// A claim from which batches are to be read.
    fn opened(&self, taking: Taking, active: RecordedClaims, parts: VecDeque<Range>, boundary: Option<&str>) -> OpenClaim {
        let Taking { claim, live, late, .. } = taking;
        let claim = HeldClaim::open(live, claim.seed, self.table.recurring);
        OpenClaim { claim, parts, active: Arc::new(active), late, boundary: boundary.map(str::to_owned) }
    }

    /// The place of the first of these rows.
    fn place(&self, rows: &Fetched) -> Option<Place> {
        let column = self.table.order_by.first()?.column;
        let first = (rows.decode)(0)?;
        Place::of(&first.values[column], self.database.dialect().compares_bytes())
    }

    /// The place before which nothing is left to be claimed, once a claim begins at `place`.
    fn floor(&self, active: &RecordedClaims, place: Place) -> Option<Place> {
        let descending = self.table.order_by.first()?.descending;
        let mut places = active.claims.iter().map(|claim| claim.from.as_deref().and_then(Place::from_text));
        places.try_fold(place, |floor, place| Some(floor.first(place?, descending)))
    }

    /// The table must be what it was when it was opened.
    fn expect_shape(&self, shape: Option<&String>) -> Result<(), Error> {
        if shape == self.shape.shown.as_ref() { Ok(()) } else { Err(Error::altered(&self.table.name)) }
    }
}

impl Scan {
    /// Whether there is a claim from which batches can be read.
    fn is_open(&self, boundary: Option<&str>) -> bool {
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
    fn nothing(&mut self, active: &RecordedClaims, ordered: bool) -> Claimed {
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
