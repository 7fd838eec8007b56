//! The claims of this relay in the side table: recorded, extended by another lease, and ended.
//!
//! What extends or ends one proves in the same statement that it still is this relay's. Next: `settle`, which ends most of them.

use std::collections::HashSet;
use std::time::Instant;

use super::active::{self, ClaimRecord};
use super::batch::Batch;
use super::database::Purpose;
use super::open::{HeldClaim, Renewal};
use super::sql::{Arg, Sql};
use super::trial::{Rule, is_broken};
use super::{Error, LEASE, SignalTable, Worker, millis};

impl Worker<'_> {
    /// The statement that records a claim.
    pub(super) fn record(&self, claim: &ClaimRecord) -> Sql {
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

    /// Extends a claim by another lease. Returns `false` if it belongs to another relay now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn renew(&mut self, batch: &Batch) -> Result<bool, Error> {
        let renewed = self.renew_claim(&batch.claim).await;
        self.ended(renewed).await
    }

    pub(super) async fn renew_claim(&mut self, claim: &HeldClaim) -> Result<bool, Error> {
        let renewed = if self.lane.database.dialect().is_embedded() {
            self.renew_together(claim).await?
        } else {
            self.session.begin(Purpose::Renew).await?;
            let renewed = self.session.execute(self.lane.extend(claim)).await?;
            self.session.commit().await?;
            renewed == 1
        };
        if renewed {
            claim.renewed();
        }
        Ok(renewed || is_broken(Rule::LossStops))
    }

    /// Extends all claims of the signal type that this process holds, where one transaction waits for the other anyway,
    /// unless somebody has done so meanwhile. (Elsewhere, one that settles would keep all the others waiting.)
    async fn renew_together(&mut self, claim: &HeldClaim) -> Result<bool, Error> {
        let lane = self.lane;
        let asked = Instant::now();
        let mut renewal = lane.renewal.lock().await;
        if let Some(last) = renewal.as_ref().filter(|last| last.begun >= asked) {
            return Ok(last.tokens.contains(claim.token()));
        }
        let begun = Instant::now();
        let mut sql = lane.timed("UPDATE signalbus_claim SET expires_at = ? + NOW WHERE token IN ", &[millis(LEASE).into()]);
        lane.database.dialect().texts(&mut sql, &lane.holding.tokens());
        sql.push(" RETURNING token");
        self.session.begin(Purpose::Renew).await?;
        let rows = self.session.rows(sql).await?;
        self.session.commit().await?;
        let tokens: HashSet<String> = rows.into_iter().flatten().flatten().collect();
        let renewed = tokens.contains(claim.token());
        *renewal = Some(Renewal { begun, tokens });
        Ok(renewed)
    }

    /// Records that a batch of a tracked claim is settled, and proves that the claim stands.
    pub(super) async fn track(&mut self, batch: &Batch) -> Sql {
        self.tracking = Some(batch.claim.tracking().await);
        let (from, settled) = batch.claim.settled_with(batch.part);
        let settled = serde_json::json!(settled).to_string();
        let args = [from.as_deref().into(), settled.as_str().into(), batch.claim.token().into()];
        self.lane.statement("UPDATE signalbus_claim SET from_key = ?, settled_ranges = ? WHERE token = ?", &args)
    }

    /// Ends a claim of which nothing is in flight any more.
    pub(super) async fn end(&mut self, claim: &HeldClaim) -> Result<(), Error> {
        self.session.begin(Purpose::Write).await?;
        let ended = self.session.execute_and_commit(self.lane.end_claim(claim, 0, false)).await;
        self.ended(ended).await.map(drop)
    }
}

impl SignalTable {
    /// Extends a claim, and proves that it stands.
    pub(super) fn extend(&self, claim: &HeldClaim) -> Sql {
        let text = "UPDATE signalbus_claim SET expires_at = ? + NOW WHERE token = ?";
        self.timed(text, &[millis(LEASE).into(), claim.token().into()])
    }

    /// Ends a claim. What may have been sent and is not settled stays in it, released: it keeps its ids.
    pub(super) fn end_claim(&self, claim: &HeldClaim, settled: usize, leftovers: bool) -> Sql {
        let token = claim.token().into();
        let number = |number: usize| Arg::Int(i64::try_from(number).unwrap_or_default());
        let set = match (leftovers || claim.has_leftovers(), &claim.rest) {
            (false, None) => return self.statement("DELETE FROM signalbus_claim WHERE token = ?", &[token]),
            (true, _) => {
                // Of a range, what is left may be anywhere.
                let text = "in_flight = in_flight - CASE WHEN to_key IS NULL THEN ? ELSE 0 END, \
                     takeovers = CASE WHEN takeovers > 0 THEN 1 ELSE 0 END";
                self.statement(text, &[number(settled)])
            }
            (false, Some(rest)) => {
                let args = [rest.from.as_deref().into(), number(rest.in_flight), rest.takeovers.into()];
                self.statement("from_key = ?, in_flight = ?, takeovers = ?", &args)
            }
        };
        let mut sql = self.statement("UPDATE signalbus_claim SET ", &[]);
        // Another token: a claim is settled once.
        sql.append(set).push(", token = ").arg(active::token().as_str());
        sql.push(", owner = '', expires_at = 0 WHERE token = ").arg(token);
        sql
    }
}
