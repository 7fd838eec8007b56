//! Settling: one durable transaction deletes or holds what a settlement names.
//!
//! Must change nothing unless the claim is still ours: each settle proves it.

use std::collections::HashMap;

use super::claim::Batch;
use super::database::{ExtraColumns, Purpose};
use super::identity::same;
use super::open::HeldClaim;
use super::sql::{Arg, Sql};
use super::{Error, LEASE, SignalTable, Worker, millis};
use signalbus_core::settlement::Settlement;
use signalbus_core::signal::{Signal, Value};

/// How many keys one statement names at most (SQLite and MySQL bound the number of arguments).
pub(super) const KEYS_PER_STATEMENT: usize = 1000;

/// The result of a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The settlement was applied.
    Done {
        /// Rows to delete that still existed.
        deleted: u64,
        /// Rows to delete that were replaced since they were read: they stay, to be sent as they are now.
        changed: usize,
    },
    /// The claim had expired and belongs to another relay now: nothing was changed.
    Fenced,
}

impl Settled {
    /// The same, with rows that were deleted before.
    fn with(self, more: u64) -> Self {
        match self {
            Self::Done { deleted, changed } => Self::Done { deleted: deleted + more, changed },
            Self::Fenced => Self::Fenced,
        }
    }
}

impl Worker<'_> {
    /// Applies a settlement to its batch, and ends the claim with the last of its batches.
    ///
    /// # Errors
    /// The database's error; nothing was changed, unless the connection was lost during the commit.
    pub async fn settle(&mut self, batch: &Batch, settlement: &Settlement) -> Result<Settled, Error> {
        let leftovers = settlement.delete.len() + settlement.defer.len() + settlement.bury.len() < batch.signals.len();
        let ends = batch.claim.ends_with_this();
        let plain = !ends && settlement.bury.is_empty() && settlement.defer.is_empty();
        let at_once = if plain && !leftovers { self.delete_at_once(batch, &settlement.delete).await? } else { 0 };
        let settled = match at_once == settlement.delete.len() as u64 {
            true if plain && !leftovers => Settled::Done { deleted: at_once, changed: 0 },
            _ => self.apply(batch, settlement, ends.then_some(leftovers)).await?.with(at_once),
        };
        if settled == Settled::Fenced {
            self.lane.lost(&batch.claim).await;
        } else if batch.claim.settled(batch.part, leftovers) && !ends {
            self.end(&batch.claim).await?;
        }
        Ok(settled)
    }

    /// Extends a claim by another lease. Returns `false` if it belongs to another relay now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn renew(&mut self, batch: &Batch) -> Result<bool, Error> {
        self.renew_claim(&batch.claim).await
    }

    pub(super) async fn renew_claim(&mut self, claim: &HeldClaim) -> Result<bool, Error> {
        self.session.begin(Purpose::Renew).await?;
        let renewed = self.session.execute(self.lane.extend(claim)).await?;
        self.session.commit().await?;
        if renewed == 1 {
            claim.renewed();
        }
        Ok(renewed == 1)
    }

    /// Ends a claim of which nothing is in flight any more.
    pub(super) async fn end(&mut self, claim: &HeldClaim) -> Result<(), Error> {
        self.session.begin(Purpose::Write).await?;
        self.session.execute_and_commit(self.lane.end_claim(claim, 0, false)).await.map(drop)
    }

    /// Deletes in one statement those of these rows of which the database can tell in it that they, and the claim,
    /// are what they were. Returns how many.
    async fn delete_at_once(&mut self, batch: &Batch, positions: &[usize]) -> Result<u64, Error> {
        let held = positions.iter().any(|&n| batch.marks[n].held);
        if positions.is_empty() || positions.len() > KEYS_PER_STATEMENT || held {
            return Ok(0);
        }
        self.session.begin(Purpose::Single).await?;
        let connection = self.session.connection();
        let mut delete = self.lane.statement("", &[]);
        if batch.claim.tracked {
            // Only if the rows are deleted: what the claim does not cover, others may claim.
            delete = self.lane.track(batch);
            self.lane.guard(&mut delete, batch, positions, connection);
            delete.push("; ");
        }
        self.lane.push_delete(&mut delete, batch, positions);
        if !self.lane.guard(&mut delete, batch, positions, connection) {
            return self.session.rollback().await.map(|()| 0);
        }
        delete.push(" AND EXISTS (SELECT 1 FROM signalbus_claim WHERE token = ").arg(batch.claim.token());
        delete.push(self.lane.database.dialect().share()).push(")");
        self.session.execute_and_commit(delete).await
    }

    /// Applies a settlement in one transaction. `ends` tells that it ends the claim, and whether signals are left.
    async fn apply(&mut self, batch: &Batch, settlement: &Settlement, ends: Option<bool>) -> Result<Settled, Error> {
        self.session.begin(Purpose::Write).await?;
        let applied = self.apply_within(batch, settlement, ends).await;
        match applied {
            Ok(settled @ Settled::Done { .. }) => Ok(settled),
            Ok(Settled::Fenced) => self.session.rollback().await.map(|()| Settled::Fenced),
            Err(error) => {
                let _ = self.session.rollback().await;
                Err(error)
            }
        }
    }

    async fn apply_within(&mut self, batch: &Batch, settlement: &Settlement, ends: Option<bool>) -> Result<Settled, Error> {
        let settled = settlement.delete.len() + settlement.defer.len() + settlement.bury.len();
        let stands = match ends {
            Some(leftovers) => self.session.execute(self.lane.end_claim(&batch.claim, settled, leftovers)).await? == 1,
            None if batch.claim.tracked && settled == batch.signals.len() => {
                self.session.execute(self.lane.track(batch)).await? == 1
            }
            None => self.share(&batch.claim).await?,
        };
        if !stands {
            return Ok(Settled::Fenced);
        }
        let (gone, replaced) = self.standing(batch, &settlement.delete).await?;
        let plain = settlement.bury.is_empty() && settlement.defer.is_empty() && !self.lane.database.dialect().numbers_versions();
        if plain && !gone.is_empty() && gone.len() <= KEYS_PER_STATEMENT && !gone.iter().any(|&n| batch.marks[n].held) {
            let deleted = self.session.execute_and_commit(self.lane.delete_rows(batch, &gone)).await?;
            return Ok(Settled::Done { deleted, changed: replaced });
        }
        let deleted = self.delete_rows(batch, &gone).await?;
        let changed = if deleted < gone.len() as u64 { self.remaining(batch, &gone).await? } else { 0 } + replaced;
        let held: Vec<usize> = gone.into_iter().filter(|&n| batch.marks[n].held).collect();
        self.forget(batch, &held).await?;
        let changed = changed + self.hold(batch, settlement).await?;
        self.session.commit().await?;
        Ok(Settled::Done { deleted, changed })
    }

    /// Proves that a claim stands, and keeps others from taking it over until the transaction ends.
    async fn share(&mut self, claim: &HeldClaim) -> Result<bool, Error> {
        let share = self.lane.database.dialect().share();
        if share.is_empty() {
            return Ok(self.session.execute(self.lane.extend(claim)).await? == 1);
        }
        let text = format!("SELECT token FROM signalbus_claim WHERE token = ?{share}");
        let rows = self.session.rows(self.lane.statement(&text, &[claim.token().into()])).await?;
        Ok(rows.len() == 1)
    }

    /// Returns which of these signals are still the rows that were read, as far as the deletion itself does not
    /// see to it, and how many were replaced.
    async fn standing(&mut self, batch: &Batch, wanted: &[usize]) -> Result<(Vec<usize>, usize), Error> {
        let lane = self.lane;
        let guarded = lane.database.dialect().numbers_versions();
        let untouched = |state| !lane.table.rewrites && wanted.iter().all(|&n| batch.marks[n].version == state);
        if guarded || self.session.state().is_some_and(untouched) {
            return Ok((wanted.to_vec(), 0));
        }
        self.compared(batch, wanted).await
    }

    /// Returns which of these signals are still the rows that were read, and how many were replaced.
    pub(super) async fn compared(&mut self, batch: &Batch, wanted: &[usize]) -> Result<(Vec<usize>, usize), Error> {
        let lane = self.lane;
        let mut found: HashMap<String, Vec<Value>> = HashMap::with_capacity(wanted.len());
        for chunk in wanted.chunks(KEYS_PER_STATEMENT) {
            let keys: Vec<&str> = chunk.iter().map(|&n| batch.signals[n].key.as_str()).collect();
            let rows = self.session.signals(lane.reread(&keys), lane.table.clone(), lane.key_extras()).await?;
            found.extend(rows.all()?.into_iter().map(|row| (row.key, row.values)));
        }
        let stands = |signal: &Signal| found.get(&signal.key).map(|values| same(values, &signal.values));
        let replaced = wanted.iter().filter(|&&n| stands(&batch.signals[n]) == Some(false)).count();
        Ok((wanted.iter().copied().filter(|&n| stands(&batch.signals[n]) == Some(true)).collect(), replaced))
    }

    /// Counts those of these rows that are still there.
    async fn remaining(&mut self, batch: &Batch, named: &[usize]) -> Result<usize, Error> {
        let mut count = 0;
        for chunk in named.chunks(KEYS_PER_STATEMENT) {
            let mut sql = self.lane.statement("SELECT count(*) FROM ", &[]);
            sql.push(&self.lane.texts.table).push(" WHERE ");
            self.lane.named(&mut sql, batch, chunk);
            count += self.session.rows(sql).await?.first().map_or(0, |row| super::number::<usize>(&row[0]));
        }
        Ok(count)
    }

    async fn delete_rows(&mut self, batch: &Batch, positions: &[usize]) -> Result<u64, Error> {
        let mut deleted = 0;
        for chunk in positions.chunks(KEYS_PER_STATEMENT) {
            let mut delete = self.lane.delete_rows(batch, chunk);
            if self.lane.database.dialect().numbers_versions() {
                self.lane.guard(&mut delete, batch, chunk, self.session.connection());
            }
            deleted += self.session.execute(delete).await?;
        }
        Ok(deleted)
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

    /// Extends a claim, and proves that it stands.
    fn extend(&self, claim: &HeldClaim) -> Sql {
        let text = "UPDATE signalbus_claim SET expires_at = ? + NOW WHERE token = ?";
        self.timed(text, &[millis(LEASE).into(), claim.token().into()])
    }

    /// Ends a claim. What may have been sent and is not settled stays in it, released: it keeps its ids.
    fn end_claim(&self, claim: &HeldClaim, settled: usize, leftovers: bool) -> Sql {
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
        sql.append(set).push(", token = ").arg(super::active::token().as_str());
        sql.push(", owner = '', expires_at = 0 WHERE token = ").arg(token);
        sql
    }

    /// Appends `key IN (…)` for these signals of a batch.
    fn named(&self, sql: &mut Sql, batch: &Batch, positions: &[usize]) {
        let keys: Vec<&str> = positions.iter().map(|&n| batch.signals[n].key.as_str()).collect();
        self.database.dialect().key_in(sql, &self.table, &keys);
    }

    fn delete_rows(&self, batch: &Batch, positions: &[usize]) -> Sql {
        let mut sql = self.statement("", &[]);
        self.push_delete(&mut sql, batch, positions);
        sql
    }

    fn push_delete(&self, sql: &mut Sql, batch: &Batch, positions: &[usize]) {
        sql.push("DELETE FROM ").push(&self.texts.table).push(" WHERE ");
        self.named(sql, batch, positions);
    }

    /// Records that a batch of a tracked claim is settled, and proves that the claim stands.
    fn track(&self, batch: &Batch) -> Sql {
        let (from, settled) = batch.claim.settled_with(batch.part);
        let settled = serde_json::json!(settled).to_string();
        let args = [from.as_deref().into(), settled.as_str().into(), batch.claim.token().into()];
        self.statement("UPDATE signalbus_claim SET from_key = ?, settled_ranges = ? WHERE token = ?", &args)
    }

    /// Appends a condition that the rows are as they were read; `false` if it cannot be told.
    fn guard(&self, sql: &mut Sql, batch: &Batch, positions: &[usize], connection: u32) -> bool {
        let versions: Vec<i64> = positions.iter().map(|&n| batch.marks[n].version).collect();
        self.database.dialect().guard(sql, &self.table, &versions, connection)
    }

    /// A claim belongs to another relay now: it is read no more.
    async fn lost(&self, claim: &HeldClaim) {
        let mut scan = self.scan.lock().await;
        if scan.open.take_if(|open| open.claim.token() == claim.token()).is_some() {
            scan.restart();
        }
    }

    /// Reads rows once more, to be compared.
    pub(super) fn reread(&self, keys: &[&str]) -> Sql {
        let mut sql = self.statement("SELECT ", &[]);
        sql.push(&self.texts.columns);
        if self.key_extras().key {
            sql.push(", ").push(&self.texts.key);
        }
        sql.push(", ").push(self.database.dialect().version().unwrap_or("0"));
        sql.push(" FROM ").push(&self.texts.table).push(" t WHERE ");
        self.database.dialect().key_in(&mut sql, &self.table, keys);
        sql.push(self.database.dialect().lock_compared());
        sql
    }

    /// What `reread` selects beside the columns.
    pub(super) fn key_extras(&self) -> ExtraColumns {
        ExtraColumns { key: self.table.integer_key().is_none(), version: true, ..ExtraColumns::default() }
    }
}
