//! Makes holds of the deferrals of version 1: their signals wait for their next attempt, as they did.
//!
//! Forgets those whose rows are gone. Next: `hold`, which says what they are now.

use std::collections::HashSet;
use std::time::Duration;

use super::PAGE;
use super::restorer::{Restorer, batch_of};
use crate::Error;
use crate::database::{Purpose, number};
use crate::hold::{Entry, RETRY};

impl Restorer<'_> {
    /// Makes holds of deferrals whose rows are still there. Returns how many.
    pub(super) async fn defer(&mut self) -> Result<u64, Error> {
        let mut deferred = 0;
        loop {
            let mut sql = self.statement("SELECT signal_key, attempts, due_at - ");
            sql.push(self.worker.lane.database.dialect().now());
            sql.push(", reason FROM signalbus_deferral WHERE signal_type = ").arg(self.signal());
            sql.push(&format!(" LIMIT {PAGE}"));
            self.worker.session.begin(Purpose::Write).await?;
            let found = self.worker.session.rows(sql).await?;
            if found.is_empty() {
                return self.worker.session.rollback().await.map(|()| deferred);
            }
            let keys: Vec<&str> = found.iter().map(|row| row[0].as_deref().unwrap_or_default()).collect();
            let held = self.held(&keys).await?;
            let mut rows = self.standing(&keys).await?;
            let (mut shown, mut entries) = (Vec::new(), Vec::new());
            for deferral in found.iter().filter(|row| !row[0].as_ref().is_some_and(|key| held.contains(key))) {
                let Some(mut row) = deferral[0].as_ref().and_then(|key| rows.remove(key)) else { continue };
                let reason = deferral[3].as_deref().unwrap_or_default();
                let mut entry = Entry::of_row(shown.len(), RETRY, number(&deferral[1]), reason, &mut row);
                entry.delay = Duration::from_millis(number::<i64>(&deferral[2]).try_into().unwrap_or_default());
                entries.push(entry);
                shown.push(row);
            }
            deferred += entries.len() as u64;
            self.worker.hold(&batch_of(shown), entries).await?;
            let mut sql = self.statement("DELETE FROM signalbus_deferral WHERE signal_type = ");
            sql.arg(self.signal()).push(" AND signal_key IN (").list(", ", keys, |sql, key| {
                sql.arg(key);
            });
            sql.push(")");
            self.worker.session.execute_and_commit(sql).await?;
        }
    }

    /// Those of these keys that have a hold of this version already.
    async fn held(&mut self, keys: &[&str]) -> Result<HashSet<String>, Error> {
        let mut sql = self.statement("SELECT signal_key FROM signalbus_hold WHERE ");
        self.worker.lane.database.dialect().held_keys(&mut sql, self.signal(), &mut keys.iter().copied());
        Ok(self.worker.session.rows(sql).await?.into_iter().flatten().flatten().collect())
    }
}
