//! Removing rows that were sent: they are deleted or marked, by their keys, with the rows of other tables that go with
//! them.
//!
//! Never a row that was not read, or is not what was read: a range only of integers each of which was. Next: `settle`, which says which.

use std::sync::atomic::Ordering::Relaxed;

use super::batch::Batch;
use super::database::{Dialect, Purpose};
use super::settle::KEYS_PER_STATEMENT;
use super::sql::Sql;
use super::table::Table;
use super::trial::{self, Rule, is_broken};
use super::{Error, SignalTable, Worker};

/// The beginning of what deletes or marks rows of a table, up to its condition.
pub(super) fn removal(dialect: &dyn Dialect, table: &Table) -> String {
    let name = dialect.table_name(&table.name);
    let set: Vec<String> = table.mark.iter().map(|(column, value)| format!("{} = {value}", dialect.quote(column))).collect();
    if set.is_empty() { dialect.delete_from(&name) } else { dialect.mark(&name, &set.join(", ")) }
}

impl Worker<'_> {
    /// Deletes in one statement those of these rows of which the database can tell in it that they, and the claim,
    /// are what they were. Returns how many.
    pub(super) async fn delete_at_once(&mut self, batch: &Batch, positions: &[usize]) -> Result<u64, Error> {
        let held = positions.iter().any(|&n| batch.marks[n].held);
        let told = self.lane.database.dialect().version().is_some() && self.lane.is_plain() && !self.lane.is_wary();
        if positions.is_empty() || positions.len() > KEYS_PER_STATEMENT || held || !told {
            return Ok(0);
        }
        self.session.begin(Purpose::Single).await?;
        let connection = self.session.connection();
        let mut delete = self.lane.statement("", &[]);
        if batch.claim.tracked {
            // Only if the rows are deleted: what the claim does not cover, others may claim.
            delete = self.track(batch).await;
            self.lane.guard(&mut delete, batch, positions, connection);
            delete.push("; ");
        }
        self.lane.push_delete(&mut delete, batch, positions);
        if !self.lane.guard(&mut delete, batch, positions, connection) {
            return self.session.rollback().await.map(|()| 0);
        }
        let dialect = self.lane.database.dialect();
        delete.push(" AND EXISTS (SELECT 1 FROM signalbus_claim WHERE token = ").arg(batch.claim.token());
        delete.push(dialect.impatient()).push(dialect.share()).push(")");
        self.session.execute_and_commit(delete).await
    }

    pub(super) async fn delete_rows(&mut self, batch: &Batch, positions: &[usize]) -> Result<u64, Error> {
        let mut deleted = 0;
        for chunk in positions.chunks(KEYS_PER_STATEMENT) {
            let keys: Vec<&str> = chunk.iter().map(|&n| batch.signals[n].key.as_str()).collect();
            for delete in self.lane.delete_children(&keys) {
                self.session.execute(delete).await?;
            }
            let mut delete = self.lane.delete_rows(batch, chunk);
            if self.lane.is_guarded() {
                self.lane.guard(&mut delete, batch, chunk, self.session.connection());
            }
            deleted += self.session.execute(delete).await?;
        }
        Ok(deleted)
    }
}

impl SignalTable {
    /// Appends `key IN (…)` for these signals of a batch.
    pub(super) fn named(&self, sql: &mut Sql, batch: &Batch, positions: &[usize]) {
        let keys: Vec<&str> = positions.iter().map(|&n| batch.signals[n].key.as_str()).collect();
        self.database.dialect().key_in(sql, &self.table, &keys);
    }

    pub(super) fn delete_rows(&self, batch: &Batch, positions: &[usize]) -> Sql {
        let mut sql = self.statement("", &[]);
        self.push_delete(&mut sql, batch, positions);
        sql
    }

    /// What deletes the rows of other tables that go with these.
    pub(super) fn delete_children(&self, keys: &[&str]) -> Vec<Sql> {
        let dialect = self.database.dialect();
        let delete = |child| {
            let child = self.table.keyed(child);
            let mut sql = self.statement(&format!("DELETE FROM {} WHERE ", dialect.table_name(&child.name)), &[]);
            dialect.key_in(&mut sql, &child, keys);
            sql
        };
        self.table.children.iter().map(delete).collect()
    }

    fn push_delete(&self, sql: &mut Sql, batch: &Batch, positions: &[usize]) {
        sql.push(&self.texts.remove);
        if is_broken(Rule::KeysNamed) {
            return trial::push_range(sql, &self.table, batch, positions);
        }
        self.named(sql, batch, positions);
    }

    /// Appends a condition that the rows are as they were read; `false` if it cannot be told.
    fn guard(&self, sql: &mut Sql, batch: &Batch, positions: &[usize], connection: u32) -> bool {
        let rows: Vec<_> = positions.iter().map(|&n| (batch.signals[n].key.as_str(), batch.marks[n].version)).collect();
        is_broken(Rule::VersionDeleted) || self.database.dialect().guard(sql, &self.table, &rows, connection)
    }

    /// Whether a row is deleted by a statement of its own, and nothing else with it.
    pub(super) fn is_plain(&self) -> bool {
        self.table.children.is_empty() && self.table.mark.is_empty()
    }

    /// Whether a deletion compares the versions of its rows by itself.
    pub(super) fn is_guarded(&self) -> bool {
        self.database.dialect().numbers_versions()
    }

    /// Whether a deletion may leave a row where it is without a word.
    pub(super) fn may_resist(&self) -> bool {
        self.table.rewrites || self.is_guarded()
    }

    /// Whether a deletion may be a trigger's change, so that it has to be looked at in its transaction.
    fn is_wary(&self) -> bool {
        let counted = self.wary.fetch_update(Relaxed, Relaxed, |wary| wary.checked_sub(1)).is_ok();
        counted || self.table.rewrites && self.is_guarded()
    }
}
