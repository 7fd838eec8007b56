//! Claiming: takes due rows for a limited time, in one short transaction that locks no row of a user.
//!
//! A claim of an unordered type is a range of keys, about a second's work (see `open`). The position where the next
//! scan starts is kept in memory and is only a hint: the recorded claims alone keep relays apart, so losing it costs
//! one scan from the start and never a row. At the end of the table, and every few seconds, the scan starts over,
//! which finds rows that committed late and rows with random keys. Next: `unordered` and `ordered`, which look for rows;
//! `reading`, then `settle`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::active::{ClaimRecord, Range, RecordedClaims};
use super::batch::Batch;
use super::database::{Fetched, Purpose, number};
use super::hold::Hold;
use super::open::{HeldClaim, Live, Rest};
use super::scan::Scan;
use super::settle::KEYS_PER_STATEMENT;
use super::sql::Arg;
use super::takeover::TakenOver;
use super::{Cause, Error, FRESH, SignalTable, Worker};

/// How often to look whether the rows that are on record as sent are still what was sent, and at how many holds at once.
const SENT_INTERVAL: Duration = Duration::from_secs(1);
const SENT_AT_ONCE: usize = 10_000;

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

    /// Sets how many batches the next claims cover, if their type has an order and keys that do not come back; see
    /// [`Batch::split`].
    pub fn cover(&mut self, batches: usize) {
        self.ahead = batches;
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
    pub(super) async fn same_shape(&mut self) -> Result<(), Error> {
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
        self.asked = Instant::now();
        // (A settle that was cancelled must keep nobody waiting.)
        self.tracking = None;
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
                    if error.is_passing() && self.asked.elapsed() < LANE_PATIENCE {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                    return Err(error);
                }
            };
            let recorded = Instant::now();
            match taken {
                Taken::Nothing(_) if !self.undeleted.is_empty() => {}
                Taken::Again => {
                    drop(scan);
                    tokio::task::yield_now().await;
                }
                Taken::Nothing(nothing) => {
                    scan.pace.idle();
                    drop(scan);
                    if !self.look_after_sent().await? {
                        return Ok(nothing);
                    }
                }
                Taken::Rows(taking, rows) => {
                    drop(scan);
                    // Yield, so that a worker waiting for the lane is not stuck behind our decoding.
                    tokio::task::yield_now().await;
                    let batch = self.lane.decoded(taking, rows, limit);
                    // Where reading took long, the claim may be another's by now.
                    if recorded.elapsed() <= FRESH || self.renew(&batch).await? {
                        return Ok(Claimed::Batch(batch));
                    }
                }
                Taken::Range(taking, active, parts) => {
                    let opened = self.lane.opened(taking, active, parts, boundary);
                    self.open(scan, opened).await?;
                }
            }
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
        while let Some(n) = active.claims.iter().position(ClaimRecord::is_free) {
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

    /// Forgets deferrals that are due and whose rows somebody else has deleted, or changed. (Others may wait for another
    /// row.)
    async fn forget_orphans(&mut self, active: &RecordedClaims) -> Result<(), Error> {
        if !active.any_due() || !active.claims.is_empty() {
            return Ok(());
        }
        let columns = self.lane.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
        let text = format!(
            "SELECT h.signal_key, {columns} FROM signalbus_hold h WHERE h.signal_type = ? AND h.state = 'retry' AND h.due_at <= ? \
             ORDER BY h.due_at LIMIT {KEYS_PER_STATEMENT}"
        );
        let args = [self.lane.signal_type.name.as_str().into(), active.now.unwrap_or_default().into()];
        let held = self.session.rows(self.lane.statement(&text, &args)).await?;
        let lost = self.lane.orphaned(&mut *self.session, &held).await?;
        let lost: Vec<&str> = lost.into_iter().filter_map(|n| held[n][0].as_deref()).collect();
        self.forget_keys(&lost).await
    }

    /// Locks the lane, then reads what is already spoken for.
    pub(super) async fn active(&mut self) -> Result<RecordedClaims, Error> {
        let signal = Arg::from(self.lane.signal_type.name.as_str());
        let dialect = self.lane.database.dialect();
        if !dialect.for_update().is_empty() {
            let text = format!("SELECT signal_type FROM signalbus_lane WHERE signal_type = ?{}", dialect.for_update());
            self.session.rows(self.lane.statement(&text, std::slice::from_ref(&signal))).await?;
        }
        // One round trip: the last row tells about the holds, the others are claims. (To find a minimum, all holds may be
        // looked at; the first of an order is found by the index.)
        let text = "SELECT 0 AS kind, token, owner, from_key, to_key, order_keys, takeovers, \
             expires_at - NOW AS due, id_seed, in_flight, serial, settled_ranges, 0 AS next_due, 0 AS clock, 0 AS dead, 0 AS undeleted, '' AS shape \
             FROM signalbus_claim WHERE signal_type = ? \
             UNION ALL SELECT 1, '', '', '', '', '', 0, \
             (SELECT due_at FROM signalbus_hold WHERE signal_type = ? AND state = 'retry' AND due_at <= NOW ORDER BY due_at DESC LIMIT 1), \
             '', 0, 0, '', \
             (SELECT due_at FROM signalbus_hold WHERE signal_type = ? AND state = 'retry' AND due_at > NOW ORDER BY due_at LIMIT 1) - NOW, NOW, \
             CASE WHEN EXISTS (SELECT 1 FROM signalbus_hold WHERE signal_type = ? AND state = 'dead') THEN 1 ELSE 0 END, \
             (SELECT due_at FROM signalbus_hold WHERE signal_type = ? AND state = 'sent' ORDER BY due_at LIMIT 1) - NOW, (SHAPE) \
             ORDER BY 1, 8";
        let shape = &self.lane.shape;
        let args: Vec<Arg> = std::iter::repeat_n(signal, 5).chain(shape.args.iter().cloned()).collect();
        let mut rows = self.session.rows(self.lane.timed(&text.replace("SHAPE", &shape.text), &args)).await?;
        let deferrals = rows.pop().unwrap_or_default();
        self.lane.expect_shape(deferrals.get(16).and_then(Option::as_ref))?;
        let told = |n: usize| deferrals.get(n).filter(|cell| cell.is_some()).map(number::<i64>);
        Ok(RecordedClaims {
            last_due: told(7),
            next_due: told(12),
            now: told(13),
            dead: told(14) == Some(1),
            undeleted: told(15),
            claims: rows.iter().map(|row| ClaimRecord::read(row, &self.owner)).collect(),
        })
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
}

impl SignalTable {
    /// The batch of a claim that has only this one.
    fn decoded(&self, taking: Taking, rows: Fetched, limit: usize) -> Batch {
        let Taking { claim, live, rest, suspect, taken_over, late, .. } = taking;
        let claim = HeldClaim::single(live, &self.holding, claim.seed, rest);
        let full = rows.is_full(limit);
        Batch { suspect, taken_over, late, full, ..Batch::of(claim, rows.all(), self) }
    }

    /// The table must be what it was when it was opened.
    fn expect_shape(&self, shape: Option<&String>) -> Result<(), Error> {
        if shape == self.shape.shown.as_ref() { Ok(()) } else { Err(Error::altered(&self.table.name)) }
    }
}
