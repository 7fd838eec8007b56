//! Settling: one durable transaction deletes, defers and dead-letters what a settlement names.
//!
//! Must change nothing unless the claim is still ours: ending the claim comes first and is the fence.

use super::claim::Batch;
use super::database::Purpose;
use super::sql::{Arg, Sql};
use super::{Error, LEASE, SignalTable, Worker, millis};
use signalbus_core::settlement::{Burial, Deferral, Settlement};
use signalbus_core::signal::Signal;

/// How many keys one statement names at most (SQLite and MySQL bound the number of arguments).
const KEYS_PER_STATEMENT: usize = 1000;

/// The result of a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The settlement was applied; `deleted` is the number of rows to delete that still existed.
    Done { deleted: u64 },
    /// The claim had expired and belongs to another relay now: nothing was changed.
    Fenced,
}

impl Worker<'_> {
    /// Applies a settlement to its batch, and ends the claim.
    ///
    /// # Errors
    /// The database's error; nothing was changed, unless the connection was lost during the commit.
    pub async fn settle(&mut self, batch: &Batch, settlement: &Settlement) -> Result<Settled, Error> {
        self.session.begin(Purpose::Settle).await?;
        let applied = self.apply(batch, settlement).await;
        match applied {
            Ok(settled @ Settled::Done { .. }) => Ok(settled),
            Ok(Settled::Fenced) => self.session.rollback().await.map(|()| Settled::Fenced),
            Err(error) => {
                let _ = self.session.rollback().await;
                Err(error)
            }
        }
    }

    /// Extends a claim by another lease. Returns `false` if it belongs to another relay now.
    ///
    /// # Errors
    /// The database's error.
    pub async fn renew(&mut self, batch: &Batch) -> Result<bool, Error> {
        let text = "UPDATE signalbus_claim SET expires_at = ? + NOW WHERE token = ?";
        let args = [millis(LEASE).into(), batch.token.as_str().into()];
        self.session.begin(Purpose::Claim).await?;
        let renewed = self.session.execute(self.lane.timed(text, &args)).await?;
        self.session.commit().await?;
        Ok(renewed == 1)
    }

    async fn apply(&mut self, batch: &Batch, settlement: &Settlement) -> Result<Settled, Error> {
        let text = "DELETE FROM signalbus_claim WHERE token = ?";
        let fence = self.lane.statement(text, &[batch.token.as_str().into()]);
        if self.session.execute(fence).await? != 1 {
            return Ok(Settled::Fenced);
        }
        let signals = |positions: &[usize]| -> Vec<&Signal> { positions.iter().map(|&n| &batch.signals[n]).collect() };
        let gone = signals(&settlement.delete);
        let plain = settlement.bury.is_empty() && settlement.defer.is_empty() && gone.iter().all(|signal| signal.attempt == 1);
        if plain && !gone.is_empty() && gone.len() <= KEYS_PER_STATEMENT {
            let keys: Vec<&str> = gone.iter().map(|signal| signal.key.as_str()).collect();
            let deleted = self.session.execute_and_commit(self.lane.delete_rows(&keys)).await?;
            return Ok(Settled::Done { deleted });
        }
        let deleted = self.delete_rows(&gone).await?;
        self.bury(batch, &settlement.bury).await?;
        let tried_before = gone.into_iter().filter(|signal| signal.attempt > 1).collect();
        self.forget_deferrals(tried_before).await?;
        self.defer(batch, &settlement.defer).await?;
        self.session.commit().await?;
        Ok(Settled::Done { deleted })
    }

    async fn delete_rows(&mut self, signals: &[&Signal]) -> Result<u64, Error> {
        let mut deleted = 0;
        for chunk in signals.chunks(KEYS_PER_STATEMENT) {
            let keys: Vec<&str> = chunk.iter().map(|signal| signal.key.as_str()).collect();
            deleted += self.session.execute(self.lane.delete_rows(&keys)).await?;
        }
        Ok(deleted)
    }

    async fn forget_deferrals(&mut self, signals: Vec<&Signal>) -> Result<(), Error> {
        for chunk in signals.chunks(KEYS_PER_STATEMENT) {
            let text = "DELETE FROM signalbus_deferral WHERE signal_type = ? AND signal_key IN (";
            let mut sql = self.lane.statement(text, &[self.lane.signal_type.name.as_str().into()]);
            sql.list(", ", chunk, |sql, signal| {
                sql.arg(signal.key.as_str());
            });
            sql.push(")");
            self.session.execute(sql).await?;
        }
        Ok(())
    }

    async fn defer(&mut self, batch: &Batch, deferrals: &[Deferral]) -> Result<(), Error> {
        let signals = deferrals.iter().map(|deferral| &batch.signals[deferral.index]);
        self.forget_deferrals(signals.filter(|signal| signal.attempt > 1).collect()).await?;
        for chunk in deferrals.chunks(KEYS_PER_STATEMENT) {
            let text = "INSERT INTO signalbus_deferral (signal_type, signal_key, order_key, attempts, due_at, reason) VALUES ";
            let mut sql = self.lane.statement(text, &[]);
            let now = self.lane.database.dialect().now();
            sql.list(", ", chunk, |sql, deferral| {
                let signal = &batch.signals[deferral.index];
                sql.push("(").arg(self.lane.signal_type.name.as_str()).push(", ");
                sql.arg(signal.key.as_str()).push(", ").arg(signal.order_key.as_str()).push(", ");
                sql.arg(deferral.attempts).push(", ").arg(millis(deferral.delay)).push(" + ").push(now);
                sql.push(", ").arg(shortened(&deferral.reason).as_str()).push(")");
            });
            self.session.execute(sql).await?;
        }
        Ok(())
    }

    /// Moves rows to the dead letters, every column of them.
    async fn bury(&mut self, batch: &Batch, burials: &[Burial]) -> Result<(), Error> {
        let lane = self.lane;
        let name = Arg::from(lane.signal_type.name.as_str());
        for burial in burials {
            let signal = &batch.signals[burial.index];
            let key = Arg::from(signal.key.as_str());
            let text = "INSERT INTO signalbus_dead_letter (signal_type, signal_key, attempts, reason, died_at) \
                 VALUES (?, ?, ?, ?, NOW)";
            let args = [name.clone(), key.clone(), burial.attempts.into(), shortened(&burial.reason).as_str().into()];
            self.session.execute(lane.timed(text, &args)).await?;
            let text = "SELECT max(id) FROM signalbus_dead_letter WHERE signal_type = ? AND signal_key = ?";
            let rows = self.session.rows(lane.statement(text, &[name.clone(), key])).await?;
            let letter: i64 = rows.first().map(|row| super::number(&row[0])).unwrap_or_default();
            for position in 0..lane.table.columns.len() {
                self.session.execute(lane.store(letter, position, &signal.key)).await?;
            }
            let text = "SELECT count(*) FROM signalbus_dead_value WHERE letter_id = ?";
            let stored = self.session.rows(lane.statement(text, &[letter.into()])).await?;
            if stored.first().map(|row| super::number(&row[0])) == Some(0_u64) {
                // The row vanished by itself: there is nothing to bury.
                let text = "DELETE FROM signalbus_dead_letter WHERE id = ?";
                self.session.execute(lane.statement(text, &[letter.into()])).await?;
            }
        }
        let buried: Vec<&Signal> = burials.iter().map(|burial| &batch.signals[burial.index]).collect();
        self.delete_rows(&buried).await?;
        self.forget_deferrals(buried).await
    }
}

impl SignalTable {
    /// Makes the next claim scan from the start: signals behind the position may be claimed again.
    pub async fn rescan(&self) {
        self.scan.lock().await.restart();
    }

    fn delete_rows(&self, keys: &[&str]) -> Sql {
        let mut sql = self.statement("DELETE FROM ", &[]);
        sql.push(&self.texts.table).push(" WHERE ");
        self.database.dialect().key_in(&mut sql, &self.table, keys);
        sql
    }

    /// Copies one column of a row to the dead letter, inside the database.
    fn store(&self, letter: i64, position: usize, key: &str) -> Sql {
        let dialect = self.database.dialect();
        let column = &self.table.columns[position];
        let text = "INSERT INTO signalbus_dead_value (letter_id, position, name, value) SELECT ";
        let mut sql = self.statement(text, &[]);
        sql.push(&format!("{letter}, {position}, ")).arg(column.name.as_str()).push(", ");
        sql.push(&dialect.stored(column, &dialect.quote(&column.name)));
        sql.push(" FROM ").push(&self.texts.table).push(" WHERE ");
        dialect.key_in(&mut sql, &self.table, &[key]);
        sql
    }
}

/// The longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 4000;

/// A reason that every database can hold: bounded, and without NUL characters.
fn shortened(reason: &str) -> String {
    let end = reason.floor_char_boundary(LONGEST_REASON);
    reason[..end].replace('\0', "\u{fffd}")
}
