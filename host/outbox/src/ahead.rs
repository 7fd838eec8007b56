//! Claiming ahead: what comes next in the order joins a claim while the rows that it has are sent.
//!
//! Nothing of it may be sent before all of those are settled as sent: if one of them stays, it is given back. So there is
//! always something to be sent, though a signal type with few order keys, or none, has one claim at a time. Next:
//! `ordered`, which makes claims; `lease`, which ends them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::RecordedClaims;
use super::batch::Batch;
use super::database::{Purpose, Row};
use super::open::HeldClaim;
use super::place::Place;
use super::rescan::SCAN_LIMIT;
use super::scan::Scan;
use super::sql::{Arg, Sql};
use super::window::Window;
use super::{Error, LEASE, SignalTable, Worker, millis};

/// For so long, rows may join a claim; then others have their turn.
const SPAN: Duration = Duration::from_secs(1);

/// What is known of the rows of a claim, behind which others may join it.
#[derive(Debug)]
pub struct Ahead {
    claim: Arc<HeldClaim>,
    /// The place of the first one.
    first: Place,
    keys: HashSet<String>,
    order_keys: HashSet<String>,
}

impl Worker<'_> {
    /// Returns what [`claim_ahead`](Self::claim_ahead) has to know of a claim, if its order allows that. It must be called
    /// then: until it returns, no settle ends the claim.
    #[must_use]
    pub fn ahead(&self, claimed: &Batch) -> Option<Ahead> {
        let Batch { claim, signals, .. } = claimed;
        let plain = claimed.full && !claimed.taken_over && !claimed.suspect && !self.lane.table.recurring;
        if !plain || claim.rest.is_some() || claim.begun.elapsed() > SPAN {
            return None;
        }
        let first = self.lane.place_of(&signals.first()?.values)?;
        let keys = signals.iter().map(|signal| signal.key.clone()).collect();
        let order_keys = signals.iter().map(|signal| signal.order_key.clone()).collect();
        // (Now: what the claim has may be sent and settled before anything is looked for.)
        claim.expect();
        Some(Ahead { claim: claim.clone(), first, keys, order_keys })
    }

    /// Claims what comes next: it joins the claim. It must not be sent before all rows that the claim had are settled as
    /// sent; if one of them stays, it is to be [given back](Self::give_back). Returns `None` if there is nothing, or if
    /// what to claim next must be looked for from the start.
    ///
    /// # Errors
    /// The database's error. Nothing has joined the claim.
    pub async fn claim_ahead(&mut self, ahead: Ahead, limit: usize, boundary: Option<&str>) -> Result<Option<Batch>, Error> {
        let limit = self.lane.fitting(limit);
        let found = self.take_ahead(&ahead, limit, boundary).await;
        let found = self.ended(found).await;
        if !matches!(found, Ok(Some(_))) {
            self.end_unless_expected(&ahead.claim).await?;
        }
        found
    }

    /// Gives back what has joined a claim, none of which was sent.
    ///
    /// # Errors
    /// The database's error; the claim expires.
    pub async fn give_back(&mut self, batch: &Batch) -> Result<(), Error> {
        self.end_unless_expected(&batch.claim).await
    }

    async fn end_unless_expected(&mut self, claim: &HeldClaim) -> Result<(), Error> {
        if claim.expect_no_more() { self.end(claim).await } else { Ok(()) }
    }

    async fn take_ahead(&mut self, ahead: &Ahead, limit: usize, boundary: Option<&str>) -> Result<Option<Batch>, Error> {
        // Always before the connection: there may be only one.
        let mut scan = self.lane.scan.lock().await;
        let begun = Instant::now();
        self.session.begin(Purpose::Write).await?;
        let mut active = self.active().await?;
        let own = active.claims.iter().position(|claim| claim.token == ahead.claim.token());
        if own.is_none_or(|own| !self.lane.goes_on(&scan, &active, own)) {
            return self.session.rollback().await.map(|()| None);
        }
        active.claims.retain(|claim| claim.token != ahead.claim.token());
        let limit = self.covered(limit);
        let few_held = self.lane.few_held(&scan, limit);
        // From its first row on: what has committed meanwhile may lie among them, before what is behind them.
        let most = limit + ahead.keys.len();
        let window = Window { until: boundary, limit: most, floor: Some(&ahead.first), few_held, ..Window::default() };
        let found = self.read(&window, &active).await?;
        let full = found.is_full(most);
        let rows: Vec<Row> = found.all().into_iter().filter(|row| !ahead.keys.contains(&row.key)).collect();
        if rows.is_empty() {
            return self.session.rollback().await.map(|()| None);
        }
        if !self.lane.database.dialect().is_embedded() {
            self.same_shape().await?;
        }
        if self.session.execute(self.lane.join(ahead, &rows)).await? != 1 {
            return self.session.rollback().await.map(|()| None);
        }
        self.session.commit().await?;
        ahead.claim.renewed_at(begun);
        scan.floor = self.lane.floor(&active, ahead.first.clone());
        drop(scan);
        Ok(Some(Batch { full, ..Batch::of(ahead.claim.clone(), rows, self.lane) }))
    }
}

impl Batch {
    /// Whether the claim is to be renewed before anything of it is sent: that was a while ago.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.claim.is_doubtful()
    }
}

impl SignalTable {
    /// Whether the next claim would go on where this one ends.
    fn goes_on(&self, scan: &Scan, active: &RecordedClaims, own: usize) -> bool {
        let mut others = active.claims.iter().enumerate().filter(|(n, _)| *n != own).map(|(_, claim)| claim);
        let free = active.claims.iter().enumerate().any(|(n, claim)| n != own && claim.is_free());
        let waits = self.table.order_key.is_empty() && (others.next().is_some() || active.next_due.is_some());
        let undeleted = active.undeleted.is_some_and(|due| due <= 0);
        let freed = scan.dead && !active.dead && self.table.holds_dead;
        let late = scan.since.is_none_or(|since| since.elapsed() > SCAN_LIMIT);
        !(free || waits || undeleted || freed || late || active.last_due > scan.last_due)
    }

    /// The statement by which rows join a claim, and that extends it.
    fn join(&self, ahead: &Ahead, rows: &[Row]) -> Sql {
        let mut order_keys: Vec<&str> = Vec::new();
        if !self.table.order_key.is_empty() {
            let joining = rows.iter().map(|row| row.order_key.as_str());
            order_keys = ahead.order_keys.iter().map(String::as_str).chain(joining).collect();
            order_keys.sort_unstable();
            order_keys.dedup();
        }
        let order_keys = serde_json::json!(order_keys).to_string();
        let in_flight = Arg::Int(i64::try_from(ahead.keys.len() + rows.len()).unwrap_or_default());
        let from = ahead.first.to_text();
        let text = "UPDATE signalbus_claim SET from_key = ?, order_keys = ?, in_flight = ?, expires_at = ? + NOW WHERE token = ?";
        let token = ahead.claim.token().into();
        self.timed(text, &[from.as_str().into(), order_keys.as_str().into(), in_flight, millis(LEASE).into(), token])
    }
}
