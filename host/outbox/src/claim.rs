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

use super::active::{ActiveClaims, ClaimRow};
use super::database::{Fetched, Purpose, number};
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
        Self { token, signals, suspect: false, taken_over: false, late: false }
    }
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
    Rows {
        claim: ClaimRow,
        rows: Fetched,
        suspect: bool,
        taken_over: bool,
        late: bool,
    },
    /// A range whose rows are still to be read.
    Range {
        claim: ClaimRow,
        active: ActiveClaims,
        late: bool,
    },
    Nothing(Claimed),
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
            self.session.begin(Purpose::Claim).await?;
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
            let (claim, rows, suspect, taken_over, late) = match taken {
                Taken::Nothing(nothing) => return Ok(nothing),
                Taken::Rows { claim, rows, suspect, taken_over, late } => (claim, rows, suspect, taken_over, late),
                Taken::Range { claim, active, late } => {
                    let rows = self.read_range(&claim, limit, &active).await;
                    let rows = rows.inspect_err(|_| self.lane.orphaned(&claim.token))?;
                    (claim, rows, false, false, late)
                }
            };
            // Decoding holds up nobody any more.
            let batch = Batch { suspect, taken_over, late, ..Batch::for_claim(claim.token, rows.all()?) };
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
            let text = "DELETE FROM signalbus_claim WHERE token = ?";
            self.session.execute(self.lane.statement(text, &[token.as_str().into()])).await?;
        }
        let taken = self.take(scan, limit, boundary).await?;
        match &taken {
            Taken::Rows { claim, .. } | Taken::Range { claim, .. } => {
                let record = self.record(claim, LEASE);
                // Where the connection is lost, it may have been recorded all the same.
                let recorded = self.session.execute_and_commit(record).await;
                recorded.inspect_err(|_| self.lane.orphaned(&claim.token))?;
            }
            Taken::Nothing(_) => self.session.commit().await?,
        }
        self.lane.orphans.lock().unwrap_or_else(PoisonError::into_inner).retain(|token| !orphans.contains(token));
        Ok(taken)
    }

    async fn read_range(&mut self, claim: &ClaimRow, limit: usize, active: &ActiveClaims) -> Result<Fetched, Error> {
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
            match self.take_over(&expired, &active, limit).await? {
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
    async fn forget_orphans(&mut self, active: &ActiveClaims) -> Result<(), Error> {
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
    async fn active(&mut self) -> Result<ActiveClaims, Error> {
        let signal = Arg::from(self.lane.signal_type.name.as_str());
        let dialect = self.lane.database.dialect();
        if !dialect.for_update().is_empty() {
            let text = format!("SELECT signal_type FROM signalbus_lane WHERE signal_type = ?{}", dialect.for_update());
            self.session.rows(self.lane.statement(&text, std::slice::from_ref(&signal))).await?;
        }
        // One round trip: the last row tells about the deferrals, the others are claims.
        let text = "SELECT 0 AS kind, token, owner, from_key, to_key, order_keys, takeovers, \
             expires_at - NOW AS due, 0 AS last_due, 0 AS next_due, 0 AS clock \
             FROM signalbus_claim WHERE signal_type = ? \
             UNION ALL SELECT 1, '', '', '', '', '', 0, \
             (SELECT min(due_at) FROM signalbus_deferral WHERE signal_type = ?) - NOW, \
             (SELECT max(due_at) FROM signalbus_deferral WHERE signal_type = ?) - NOW, \
             (SELECT min(due_at) FROM signalbus_deferral WHERE signal_type = ? AND due_at > NOW) - NOW, NOW \
             ORDER BY 1, 8";
        let args = [signal.clone(), signal.clone(), signal.clone(), signal];
        let mut rows = self.session.rows(self.lane.timed(text, &args)).await?;
        let deferrals = rows.pop().unwrap_or_default();
        let told = |n: usize| deferrals.get(n).filter(|cell| cell.is_some()).map(number::<i64>);
        Ok(ActiveClaims {
            due: told(7).zip(told(8)),
            next_due: told(9),
            now: told(10),
            claims: rows.iter().map(|row| ClaimRow::read(row, &self.owner)).collect(),
        })
    }

    /// Takes the rows of a claim whose owner did not come back.
    ///
    /// The second time one signal by itself, so that the one that kills its relay is found.
    async fn take_over(&mut self, expired: &ClaimRow, active: &ActiveClaims, limit: usize) -> Result<TakenOver, Error> {
        // Its owner may have settled or renewed it after all; whoever changes the claim first has it.
        let text = "DELETE FROM signalbus_claim WHERE token = ? AND expires_at <= NOW";
        if self.session.execute(self.lane.timed(text, &[expired.token.as_str().into()])).await? != 1 {
            return Ok(TakenOver::Changed);
        }
        let alone = expired.takeovers > 0;
        let ordered = self.lane.table.ordered();
        let window = Window {
            after: expired.from.as_deref(),
            until: expired.to.as_deref(),
            only: (ordered && !expired.order_keys.is_empty()).then_some(&expired.order_keys[..]),
            limit: if alone { 1 } else { limit },
        };
        let rows = self.read(&window, active).await?;
        let Some(last) = rows.last()? else { return Ok(TakenOver::Empty) };
        if alone && !ordered {
            // What remains of the claim waits its turn, to be taken one by one.
            let rest = ClaimRow { from: Some(last.key.clone()), takeovers: 1, ..expired.rest() };
            self.session.execute(self.record(&rest, Duration::ZERO)).await?;
        } else if alone && self.lane.table.order_key.len().min(expired.order_keys.len()) > 0 {
            let mut rest = ClaimRow { takeovers: 1, ..expired.rest() };
            rest.order_keys.retain(|key| *key != last.order_key);
            if !rest.order_keys.is_empty() {
                self.session.execute(self.record(&rest, Duration::ZERO)).await?;
            }
        }
        let mut claim = self.recorded(expired.from.as_deref(), &last, &rows)?;
        claim.takeovers = expired.takeovers + 1;
        if !ordered && rows.len < window.limit {
            claim.to.clone_from(&expired.to);
        }
        let suspect = expired.takeovers > 1;
        Ok(TakenOver::Rows(Taken::Rows { claim, rows, suspect, taken_over: true, late: false }))
    }

    async fn take_ordered(
        &mut self,
        active: &ActiveClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let blocked = !active.claims.is_empty() || active.due.is_some_and(|(_, last)| last > 0);
        if self.lane.table.order_key.is_empty() && blocked {
            return Ok(None);
        }
        let window = Window { until: boundary, limit, ..Window::default() };
        let rows = self.read(&window, active).await?;
        self.claimed(None, rows, false)
    }

    async fn take_range(
        &mut self,
        scan: &mut Scan,
        active: &mut ActiveClaims,
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
        active: &mut ActiveClaims,
        late: bool,
    ) -> Result<Option<(Taken, String)>, Error> {
        if self.lane.database.dialect().for_update().is_empty() {
            let rows = self.read(window, active).await?;
            let Some(last) = rows.last()? else { return Ok(None) };
            let taken = self.claimed(window.after, rows, late)?;
            return Ok(taken.map(|taken| (taken, last.key)));
        }
        let Some(until) = self.range_end(window, active).await? else { return Ok(None) };
        let claim = ClaimRow::new(window.after.map(str::to_owned), Some(until.clone()), Vec::new());
        Ok(Some((Taken::Range { claim, active: std::mem::take(active), late }, until)))
    }

    fn claimed(&self, after: Option<&str>, rows: Fetched, late: bool) -> Result<Option<Taken>, Error> {
        let Some(last) = rows.last()? else { return Ok(None) };
        let claim = self.recorded(after, &last, &rows)?;
        Ok(Some(Taken::Rows { claim, rows, suspect: false, taken_over: false, late }))
    }

    /// The claim that covers these signals.
    fn recorded(&self, after: Option<&str>, last: &Signal, rows: &Fetched) -> Result<ClaimRow, Error> {
        let range = !self.lane.table.ordered();
        let mut order_keys = Vec::new();
        if !self.lane.table.order_key.is_empty() {
            order_keys = rows.all()?.into_iter().map(|signal| signal.order_key).collect();
            order_keys.sort_unstable();
            order_keys.dedup();
        }
        let from = after.filter(|_| range).map(str::to_owned);
        Ok(ClaimRow::new(from, range.then(|| last.key.clone()), order_keys))
    }

    /// The statement that records a claim.
    fn record(&self, claim: &ClaimRow, lease: Duration) -> Sql {
        let text = "INSERT INTO signalbus_claim (token, signal_type, owner, from_key, to_key, order_keys, takeovers, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ? + NOW)";
        let order_keys = serde_json::json!(claim.order_keys).to_string();
        let args = [
            claim.token.as_str().into(),
            self.lane.signal_type.name.as_str().into(),
            self.owner.as_str().into(),
            claim.from.as_deref().into(),
            claim.to.as_deref().into(),
            order_keys.as_str().into(),
            claim.takeovers.into(),
            millis(lease).into(),
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
fn nothing(active: &ActiveClaims) -> Claimed {
    let ahead = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    let others = active.claims.iter().filter(|claim| !claim.mine);
    Claimed::Nothing { due_in: active.next_due.map(ahead), claimed_for: others.map(|claim| ahead(claim.expires_in)).max() }
}
