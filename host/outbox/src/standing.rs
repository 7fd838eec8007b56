//! What stands of rows that were read, when they are to be deleted: each is what it was, locked, replaced, or gone.
//!
//! Takes part in the settle's transaction, and never waits for a lock. Next: `settle`, which asks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::batch::Batch;
use super::database::{Cell, ExtraColumns, OWN_VERSION, Row, number};
use super::identity::same;
use super::settle::KEYS_PER_STATEMENT;
use super::sql::Sql;
use super::trial::{Rule, is_broken};
use super::{Error, SignalTable, Worker};
use signalbus_core::signal::Value;

/// How often a locked row is looked at again before it is held.
const BRIEFLY: usize = 4;

/// What was found of rows that are to be deleted.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Are what was read.
    pub(super) here: Vec<usize>,
    /// Likewise, and locked by somebody.
    pub(super) locked: Vec<usize>,
    pub(super) replaced: Vec<usize>,
}

impl Worker<'_> {
    /// Returns which of the rows to delete are still what was read, as far as the deletion itself does not see to it.
    pub(super) async fn standing(&mut self, batch: &Batch, wanted: &[usize], skip_locked: bool) -> Result<Standing, Error> {
        let lane = self.lane;
        let untouched = |state| !lane.table.rewrites && wanted.iter().all(|&n| batch.marks[n].version == state);
        let locks = skip_locked || lane.locks_first();
        let told = lane.is_guarded() && !locks || self.session.state().is_some_and(untouched) || is_broken(Rule::VersionDeleted);
        if told || wanted.is_empty() {
            return Ok(Standing { here: wanted.to_vec(), ..Standing::default() });
        }
        let lock = lane.database.dialect().lock_rows(lane.table.lockable);
        let mut standing = self.locked(batch, wanted, lock).await?;
        // Another worker of ours may have been at a row next to one of these.
        for _ in 0..BRIEFLY {
            if standing.locked.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let again = std::mem::take(&mut standing.locked);
            let again = self.locked(batch, &again, lock).await?;
            standing.here.extend(again.here);
            standing.replaced.extend(again.replaced);
            standing.locked = again.locked;
        }
        Ok(standing)
    }

    /// Locks rows, if `lock` does, and compares them.
    async fn locked(&mut self, batch: &Batch, wanted: &[usize], lock: &str) -> Result<Standing, Error> {
        let mut standing = if self.lane.table.view.is_some() && !lock.is_empty() {
            let free = self.lock_keys(batch, wanted, lock).await?;
            self.compared(batch, &free, "").await?
        } else {
            self.compared(batch, wanted, lock).await?
        };
        if !lock.is_empty() {
            // What was passed over is gone, or locked.
            let passed = |n: &usize| !standing.here.contains(n) && !standing.replaced.contains(n);
            let passed: Vec<usize> = wanted.iter().copied().filter(passed).collect();
            let seen = self.compared(batch, &passed, "").await?;
            standing.locked = seen.here;
            standing.replaced.extend(seen.replaced);
        }
        Ok(standing)
    }

    /// Locks rows of a table that is read through a view, and returns those that could be locked.
    async fn lock_keys(&mut self, batch: &Batch, wanted: &[usize], lock: &str) -> Result<Vec<usize>, Error> {
        let lane = self.lane;
        let mut locked: HashSet<String> = HashSet::with_capacity(wanted.len());
        for chunk in wanted.chunks(KEYS_PER_STATEMENT) {
            let mut sql = lane.statement("SELECT ", &[]);
            sql.push(&lane.texts.key)
                .push(" FROM ")
                .push(&lane.database.dialect().table_name(&lane.table.name))
                .push(" t WHERE ");
            lane.named(&mut sql, batch, chunk);
            sql.push(lock);
            locked.extend(self.session.rows(sql).await?.into_iter().flatten().flatten());
        }
        Ok(wanted.iter().copied().filter(|&n| locked.contains(&batch.signals[n].key)).collect())
    }

    /// Returns which of these signals are still the rows that were read.
    pub(super) async fn compared(&mut self, batch: &Batch, wanted: &[usize], lock: &str) -> Result<Standing, Error> {
        let lane = self.lane;
        let numbered = lane.table.numbered;
        let mut standing = Standing::default();
        for chunk in wanted.chunks(KEYS_PER_STATEMENT) {
            let found = if numbered { self.versions(batch, chunk, lock).await? } else { self.rows(batch, chunk, lock).await? };
            for &n in chunk {
                let Some(row) = found.get(&batch.signals[n].key) else { continue };
                let stands = match numbered {
                    true => row.version == batch.marks[n].version,
                    false => same(&row.values, &batch.signals[n].values, &lane.table.computed),
                };
                if stands { standing.here.push(n) } else { standing.replaced.push(n) }
            }
        }
        Ok(standing)
    }

    /// Reads the rows of these signals again, by their keys.
    async fn rows(&mut self, batch: &Batch, wanted: &[usize], lock: &str) -> Result<HashMap<String, Row>, Error> {
        let lane = self.lane;
        let keys: Vec<&str> = wanted.iter().map(|&n| batch.signals[n].key.as_str()).collect();
        let rows = self.session.signals(lane.reread(&keys, lock), lane.table.clone(), lane.key_extras(), None).await?;
        Ok(rows.all().into_iter().map(|row| (row.key.clone(), row)).collect())
    }

    /// The same, without their values.
    async fn versions(&mut self, batch: &Batch, wanted: &[usize], lock: &str) -> Result<HashMap<String, Row>, Error> {
        let texts = &self.lane.texts;
        let text = format!("SELECT {}, {} FROM {} t WHERE ", texts.key, texts.version_now, texts.from);
        let mut sql = self.lane.statement(&text, &[]);
        self.lane.named(&mut sql, batch, wanted);
        sql.push(lock);
        let row = |row: Vec<Cell>| {
            let key = row[0].clone()?;
            Some((key.clone(), Row { key, version: number(&row[1]), ..Row::default() }))
        };
        Ok(self.session.rows(sql).await?.into_iter().filter_map(row).collect())
    }

    /// Returns those of these rows that were deleted, and are there all the same, each as it is now; and how many
    /// were replaced by others.
    pub(super) async fn suppressed(
        &mut self,
        batch: &Batch,
        deleted: &[usize],
    ) -> Result<(Vec<(usize, Vec<Value>)>, usize), Error> {
        let lane = self.lane;
        let numbered = lane.table.numbered;
        let (mut suppressed, mut changed) = (Vec::new(), 0);
        for chunk in deleted.chunks(KEYS_PER_STATEMENT) {
            let mut found = self.rows(batch, chunk, "").await?;
            for &n in chunk {
                let Some(row) = found.remove(&batch.signals[n].key) else { continue };
                // Nobody else can change a row that was locked, or compared in a database that is. (A trigger may have
                // changed it under the number of a transaction within this one.)
                let own = row.version == OWN_VERSION || row.version == batch.marks[n].version;
                if own || !numbered || lane.locks_first() {
                    suppressed.push((n, row.values));
                } else {
                    changed += 1;
                }
            }
        }
        Ok((suppressed, changed))
    }
}

impl SignalTable {
    /// Whether rows are locked before they are deleted, since a trigger may change them instead.
    fn locks_first(&self) -> bool {
        self.table.rewrites && self.table.lockable
    }

    /// Reads rows once more, to be compared; `lock` is one of the dialect's.
    pub(super) fn reread(&self, keys: &[&str], lock: &str) -> Sql {
        let mut sql = self.statement("SELECT ", &[]);
        sql.push(&self.texts.columns);
        if self.key_extras().key {
            sql.push(", ").push(&self.texts.key);
        }
        sql.push(", ").push(&self.texts.version_now);
        sql.push(" FROM ").push(&self.texts.from).push(" t WHERE ");
        self.database.dialect().key_in(&mut sql, &self.table, keys);
        sql.push(lock);
        sql
    }

    /// What `reread` selects beside the columns.
    pub(super) fn key_extras(&self) -> ExtraColumns {
        ExtraColumns { key: self.table.integer_key().is_none(), version: true, ..ExtraColumns::default() }
    }
}
