//! Claiming: takes due rows for a limited time, in one short transaction that locks no row of a user.
//!
//! A claim of an unordered type is a range of keys. The position where the next scan starts is kept in
//! memory and is only a hint: the recorded claims alone keep relays apart, so losing it costs one scan
//! from the start and never a row. At the end of the table, and every few seconds, the scan starts
//! over, which finds rows that committed late and rows with random keys.
//!
//! An ordered type is always scanned from the start. A signal that is claimed or deferred holds back
//! every signal with the same order key; without `order_key`, every signal. Next: `window`, then `settle`.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::active::{ClaimRecord, RecordedClaims};
use super::database::{Fetched, Purpose, Row, number};
use super::identity::{Identity, Seed};
use super::sql::{Arg, Sql};
use super::window::Window;
use super::{Error, LEASE, RENEWAL, Worker, millis};
use signalbus_core::settlement::Settlement;
use signalbus_core::signal::Signal;

/// How long a scan may go on before it starts over to look for late commits.
const SCAN_LIMIT: Duration = Duration::from_secs(5);

/// Signals claimed by this relay for a limited time.
#[derive(Debug)]
pub struct Batch {
    pub(super) token: String,
    /// What the settle has to know of each signal.
    pub(super) marks: Vec<Mark>,
    /// What the claim covers beside the batch, once the batch is settled.
    pub(super) rest: Option<Rest>,
    pub signals: Vec<Signal>,
    /// Two relays died while sending this one signal: it is charged an attempt instead of being sent.
    pub suspect: bool,
    /// The claim was taken over from a relay that died: the batch may have been sent already.
    pub taken_over: bool,
    /// The batch lies behind rows that were claimed earlier: its rows appeared late, or were left out.
    pub late: bool,
}

impl Batch {
    /// Creates the batch that was claimed under `token`.
    pub fn for_claim(token: String, signals: Vec<Signal>) -> Self {
        Self { token, marks: Vec::new(), rest: None, signals, suspect: false, taken_over: false, late: false }
    }

    fn of(taken: &Taking, rows: Vec<Row>, identity: &Identity) -> Self {
        let mark = |row: &Row| Mark { version: row.version, seed: row.seed.unwrap_or(taken.claim.seed) };
        let marks: Vec<Mark> = rows.iter().map(mark).collect();
        let signals = rows.into_iter().zip(&marks).map(|(row, mark)| identity.signal(row, mark.seed)).collect();
        let Taking { claim, rest, suspect, taken_over, late, .. } = taken;
        let batch = Self::for_claim(claim.token.clone(), signals);
        Self { marks, rest: rest.clone(), suspect: *suspect, taken_over: *taken_over, late: *late, ..batch }
    }
}

/// What the settle has to know of a signal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) version: i64,
    pub(super) seed: Seed,
}

/// The part of a claim that its next holder begins with.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) from: Option<String>,
    pub(super) in_flight: usize,
}

/// The result of a claim.
#[derive(Debug)]
pub enum Claimed {
    Batch(Batch),
    /// Nothing is due.
    Nothing {
        /// Time until the earliest deferred signal is due.
        due_in: Option<Duration>,
        /// Time until the last claim of another relay expires, if it is not settled before.
        claimed_for: Option<Duration>,
    },
}

/// What a transaction took, before it is decoded.
enum Taken {
    Rows(Taking, Fetched),
    /// A range whose rows are still to be read.
    Range(Taking, RecordedClaims),
    Nothing(Claimed),
}

struct Taking {
    claim: ClaimRecord,
    /// Whether the side table has the claim already.
    recorded: bool,
    rest: Option<Rest>,
    suspect: bool,
    taken_over: bool,
    late: bool,
}

impl Taking {
    fn new(claim: ClaimRecord, late: bool) -> Self {
        Self { claim, recorded: false, rest: None, suspect: false, taken_over: false, late }
    }
}

/// What became of a claim that had expired.
enum TakenOver {
    Rows(Taken),
    /// Its rows are gone.
    Empty,
    /// Its owner has settled or renewed it after all.
    Changed,
}

/// Where the scan of an unordered type stands.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) position: Option<String>,
    since: Option<Instant>,
}

impl Worker<'_> {
    /// Claims up to `limit` due rows; with `boundary`, none with a higher key.
    ///
    /// # Errors
    /// The database's error. Nothing was claimed, or it can be claimed again once the lease is over.
    pub async fn claim(&mut self, limit: usize, boundary: Option<&str>) -> Result<Claimed, Error> {
        loop {
            self.session.begin(Purpose::Write).await?;
            let mut scan = self.lane.scan.lock().await;
            let taken = match self.take_and_record(&mut scan, limit, boundary).await {
                Ok(taken) => taken,
                Err(error) => {
                    let _ = self.session.rollback().await;
                    return Err(error);
                }
            };
            drop(scan);
            let recorded = Instant::now();
            // Yield, so that a worker waiting for the lane is not stuck behind our decoding.
            tokio::task::yield_now().await;
            let (taking, rows) = match taken {
                Taken::Nothing(nothing) => return Ok(nothing),
                Taken::Rows(taking, rows) => (taking, rows),
                Taken::Range(taking, active) => {
                    let rows = self.read_range(&taking.claim, limit, &active).await;
                    let rows = rows.inspect_err(|_| self.lane.orphaned(&taking.claim.token))?;
                    (taking, rows)
                }
            };
            // Decoding holds up nobody any more.
            let batch = Batch::of(&taking, rows.all()?, &self.lane.identity);
            // Where reading took long, the claim may be another's by now.
            if recorded.elapsed() > RENEWAL && !self.renew(&batch).await? {
                continue;
            }
            if !batch.signals.is_empty() {
                return Ok(Claimed::Batch(batch));
            }
            // Somebody else has deleted the rows meanwhile.
            self.settle(&batch, &Settlement::default()).await?;
        }
    }

    async fn take_and_record(&mut self, scan: &mut Scan, limit: usize, boundary: Option<&str>) -> Result<Taken, Error> {
        // Claims that this relay never got to send are given back.
        let orphans = self.lane.orphans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for token in &orphans {
            let text = "UPDATE signalbus_claim SET owner = '', expires_at = 0 WHERE token = ?";
            self.session.execute(self.lane.statement(text, &[token.as_str().into()])).await?;
        }
        let taken = self.take(scan, limit, boundary).await?;
        match &taken {
            Taken::Rows(taking, _) | Taken::Range(taking, _) => {
                let recorded = match taking.recorded {
                    true => self.session.commit().await,
                    false => self.session.execute_and_commit(self.record(&taking.claim)).await.map(drop),
                };
                // Where the connection is lost, it may have been recorded all the same.
                recorded.inspect_err(|_| self.lane.orphaned(&taking.claim.token))?;
            }
            Taken::Nothing(_) => self.session.commit().await?,
        }
        self.lane.orphans.lock().unwrap_or_else(PoisonError::into_inner).retain(|token| !orphans.contains(token));
        Ok(taken)
    }

    async fn read_range(&mut self, claim: &ClaimRecord, limit: usize, active: &RecordedClaims) -> Result<Fetched, Error> {
        self.session.begin(Purpose::Read).await?;
        let window = Window { after: claim.from.as_deref(), until: claim.to.as_deref(), limit, only: None };
        let rows = self.read(&window, active).await?;
        self.session.commit().await?;
        Ok(rows)
    }

    async fn take(&mut self, scan: &mut Scan, limit: usize, boundary: Option<&str>) -> Result<Taken, Error> {
        let mut active = self.active().await?;
        while let Some(n) = active.claims.iter().position(|claim| claim.expires_in <= 0) {
            let expired = active.claims.remove(n);
            match self.take_over(expired, &mut active, limit).await? {
                TakenOver::Rows(taken) => return Ok(taken),
                TakenOver::Empty => {}
                TakenOver::Changed => active = self.active().await?,
            }
        }
        let taken = if self.lane.table.ordered() {
            self.take_ordered(&active, limit, boundary).await?
        } else {
            self.take_range(scan, &mut active, limit, boundary).await?
        };
        if taken.is_none() && boundary.is_none() {
            self.forget_orphans(&active).await?;
        }
        Ok(taken.unwrap_or_else(|| Taken::Nothing(nothing(&active))))
    }

    /// Forgets the deferrals of rows that somebody else has deleted: when everything that is due
    /// was looked for and nothing was found, what is due has no row any more.
    async fn forget_orphans(&mut self, active: &RecordedClaims) -> Result<(), Error> {
        let Some((first, last)) = active.due else { return Ok(()) };
        // Where order is promised, what is not due hides what is.
        let hidden = self.lane.table.ordered() && last > 0;
        if first > 0 || hidden || !active.claims.is_empty() {
            return Ok(());
        }
        let text = "DELETE FROM signalbus_deferral WHERE signal_type = ? AND due_at <= ?";
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
        // One round trip: the last row tells about the deferrals, the others are claims.
        let text = "SELECT 0 AS kind, token, owner, from_key, to_key, order_keys, takeovers, \
             expires_at - NOW AS due, id_seed, in_flight, serial, 0 AS last_due, 0 AS next_due, 0 AS clock \
             FROM signalbus_claim WHERE signal_type = ? \
             UNION ALL SELECT 1, '', '', '', '', '', 0, \
             (SELECT min(due_at) FROM signalbus_deferral WHERE signal_type = ?) - NOW, '', 0, 0, \
             (SELECT max(due_at) FROM signalbus_deferral WHERE signal_type = ?) - NOW, \
             (SELECT min(due_at) FROM signalbus_deferral WHERE signal_type = ? AND due_at > NOW) - NOW, NOW \
             ORDER BY 1, 8";
        let args = [signal.clone(), signal.clone(), signal.clone(), signal];
        let mut rows = self.session.rows(self.lane.timed(text, &args)).await?;
        let deferrals = rows.pop().unwrap_or_default();
        let told = |n: usize| deferrals.get(n).filter(|cell| cell.is_some()).map(number::<i64>);
        Ok(RecordedClaims {
            due: told(7).zip(told(11)),
            next_due: told(12),
            now: told(13),
            claims: rows.iter().map(|row| ClaimRecord::read(row, &self.owner)).collect(),
        })
    }

    /// Takes a claim whose owner did not come back, or has released it: its signals keep their ids.
    ///
    /// The second time one signal by itself, so that the one that kills its relay is found.
    async fn take_over(&mut self, found: ClaimRecord, active: &mut RecordedClaims, limit: usize) -> Result<TakenOver, Error> {
        let (alone, expired, old) = (found.takeovers > 0, !found.released, found.token.clone());
        let suspect = expired && found.takeovers > 1;
        let claim = found.taken_over();
        // Its owner may have settled or renewed it after all; whoever changes the claim first has it.
        let text = "UPDATE signalbus_claim SET token = ?, owner = ?, takeovers = ?, expires_at = ? + NOW \
             WHERE token = ? AND expires_at <= NOW";
        let args = [
            claim.token.as_str().into(),
            self.owner.as_str().into(),
            claim.takeovers.into(),
            millis(LEASE).into(),
            old.as_str().into(),
        ];
        if self.session.execute(self.lane.timed(text, &args)).await? != 1 {
            return Ok(TakenOver::Changed);
        }
        let ordered = self.lane.table.ordered();
        let window = Window {
            after: claim.from.as_deref(),
            until: claim.to.as_deref(),
            only: (ordered && !claim.order_keys.is_empty()).then_some(&claim.order_keys[..]),
            limit: if alone { 1 } else { limit },
        };
        // A younger claim may cover the same range, but not these rows.
        let (younger, older) = std::mem::take(&mut active.claims).into_iter().partition(|other| other.serial > claim.serial);
        active.claims = older;
        let rows = self.read(&window, active).await;
        active.claims.extend::<Vec<_>>(younger);
        let rows = rows?;
        let Some(last) = rows.last()? else {
            let text = "DELETE FROM signalbus_claim WHERE token = ?";
            self.session.execute(self.lane.statement(text, &[claim.token.as_str().into()])).await?;
            return Ok(TakenOver::Empty);
        };
        let more = rows.len == window.limit;
        let rest = match ordered {
            true if more => {
                // What was deferred in the meantime has its id from there.
                let read = rows.all()?.iter().filter(|row| row.seed.is_none()).count();
                Some(Rest { from: None, in_flight: claim.in_flight.saturating_sub(read) }).filter(|rest| rest.in_flight > 0)
            }
            false if more && claim.to.as_ref() != Some(&last.key) => Some(Rest { from: Some(last.key), in_flight: 0 }),
            _ => None,
        };
        let taking = Taking { recorded: true, rest, suspect, taken_over: expired, ..Taking::new(claim, false) };
        Ok(TakenOver::Rows(Taken::Rows(taking, rows)))
    }

    async fn take_ordered(
        &mut self,
        active: &RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let blocked = !active.claims.is_empty() || active.due.is_some_and(|(_, last)| last > 0);
        if self.lane.table.order_key.is_empty() && blocked {
            return Ok(None);
        }
        let window = Window { until: boundary, limit, ..Window::default() };
        let rows = self.read(&window, active).await?;
        self.claimed(active, None, rows, false)
    }

    async fn take_range(
        &mut self,
        scan: &mut Scan,
        active: &mut RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        // A due deferral may lie behind the position: look for it no more than once a second.
        let patience = match active.due {
            Some((first, _)) if first <= 0 => Duration::from_secs(1),
            _ => SCAN_LIMIT,
        };
        if scan.since.is_none_or(|since| since.elapsed() > patience) {
            scan.restart();
        }
        let mut tail = None;
        loop {
            let after = scan.position.take();
            let window = Window { after: after.as_deref(), until: boundary, limit, only: None };
            if let Some((taken, position)) = self.take_window(&window, active, tail.is_some()).await? {
                scan.position = Some(position);
                return Ok(Some(taken));
            }
            if after.is_none() {
                // What comes next comes, as a rule, behind what there was.
                scan.position = tail;
                return Ok(None);
            }
            tail = after;
            scan.restart();
        }
    }

    /// Claims what is due in a window; the last key of it. Where others wait for the lane meanwhile,
    /// the rows themselves are read later.
    async fn take_window(
        &mut self,
        window: &Window<'_>,
        active: &mut RecordedClaims,
        late: bool,
    ) -> Result<Option<(Taken, String)>, Error> {
        if self.lane.database.dialect().for_update().is_empty() {
            let rows = self.read(window, active).await?;
            let Some(last) = rows.last()? else { return Ok(None) };
            let taken = self.claimed(active, window.after, rows, late)?;
            return Ok(taken.map(|taken| (taken, last.key)));
        }
        let Some(until) = self.range_end(window, active).await? else { return Ok(None) };
        let claim = ClaimRecord::new(window.after.map(str::to_owned), Some(until.clone()), Vec::new());
        let claim = ClaimRecord { serial: active.next_serial(), ..claim };
        Ok(Some((Taken::Range(Taking::new(claim, late), std::mem::take(active)), until)))
    }

    fn claimed(&self, active: &RecordedClaims, after: Option<&str>, rows: Fetched, late: bool) -> Result<Option<Taken>, Error> {
        let Some(last) = rows.last()? else { return Ok(None) };
        let range = !self.lane.table.ordered();
        let mut order_keys = Vec::new();
        if !self.lane.table.order_key.is_empty() {
            order_keys = rows.all()?.into_iter().map(|row| row.order_key).collect();
            order_keys.sort_unstable();
            order_keys.dedup();
        }
        let from = after.filter(|_| range).map(str::to_owned);
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

impl Scan {
    /// Looks from the start next time: something may lie behind the position.
    pub(super) fn restart(&mut self) {
        self.position = None;
        self.since = Some(Instant::now());
    }
}

/// What is said where nothing is due.
fn nothing(active: &RecordedClaims) -> Claimed {
    let ahead = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    let others = active.claims.iter().filter(|claim| !claim.mine);
    Claimed::Nothing { due_in: active.next_due.map(ahead), claimed_for: others.map(|claim| ahead(claim.expires_in)).max() }
}
