//! Dead letters: signals that are not retried until someone redrives them.
//!
//! The row stays where it is, so that redriving it is only a change of its hold: nothing was copied, and nothing
//! that depends on the row was touched. Next: `redrive` in `signalbus-relay`; `hold` writes the letters.

use std::collections::HashMap;
use std::time::Duration;

use super::database::{Cell, Purpose, Row, number};
use super::hold::{DEAD, Hold, RETRY};
use super::identity::text;
use super::settle::KEYS_PER_STATEMENT;
use super::sql::Sql;
use super::{Error, Outbox, SignalTable};
use signalbus_core::signal::Signal;

/// A signal that could not be sent, without its row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetter {
    pub id: i64,
    #[serde(rename = "type")]
    pub signal: String,
    /// The primary key, as in the signal's id.
    pub key: String,
    pub attempts: u32,
    pub reason: String,
    /// The group of its reason: those that differ in numbers and ids only.
    pub group: String,
    /// Milliseconds since 1970, by the database's clock.
    pub died_at: i64,
}

/// The row of a dead letter: the name of each column, and its value as text; `None` is NULL.
pub type DeadRow = Vec<(String, Option<String>)>;

const LETTERS: &str =
    "SELECT id, signal_type, signal_key, attempts, reason, since, reason_group FROM signalbus_hold WHERE state = 'dead'";

/// How many letters one transaction changes.
const PAGE: usize = 5000;

/// Which dead letters: those with all of these properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of these signal types; empty: of any.
    pub signals: Vec<String>,
    /// Of this group of reasons.
    pub group: Option<String>,
    /// Dead for so long at least.
    pub older_than: Option<Duration>,
}

/// Dead letters of one signal type whose reasons differ in numbers and ids only.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeadGroup {
    #[serde(rename = "type")]
    pub signal: String,
    pub group: String,
    pub count: u64,
    /// The reason of one of them.
    pub reason: String,
    /// When the first and the last one died: milliseconds since 1970, by the database's clock.
    pub first: i64,
    pub last: i64,
}

impl Selection {
    fn push(&self, sql: &mut Sql, now: &str) {
        if !self.signals.is_empty() {
            sql.push(" AND signal_type IN (");
            sql.list(", ", &self.signals, |sql, signal| {
                sql.arg(signal.as_str());
            });
            sql.push(")");
        }
        if let Some(group) = &self.group {
            sql.push(" AND reason_group = ").arg(group.as_str());
        }
        if let Some(age) = self.older_than {
            sql.push(" AND since <= ").push(now).push(" - ").arg(super::millis(age));
        }
    }
}

impl Outbox {
    /// Returns up to `limit` dead letters of these types, or of all types if `signals` is empty, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_letters(&self, signals: &[String], limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.select_dead(&Selection { signals: signals.to_vec(), ..Selection::default() }, 0, limit).await
    }

    /// Returns up to `limit` dead letters with numbers above `after`, by their numbers.
    ///
    /// # Errors
    /// The database's error.
    pub async fn select_dead(&self, selection: &Selection, after: i64, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut sql = self.statement(&format!("{LETTERS} AND id > ?"), &[after.into()]);
        selection.push(&mut sql, self.database.dialect().now());
        sql.push(&format!(" ORDER BY id LIMIT {limit}"));
        let rows = self.read(sql).await.map_err(super::schema::missing)?;
        Ok(rows.iter().map(|row| DeadLetter::read(row)).collect())
    }

    /// Returns the groups of dead letters, the largest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_groups(&self, selection: &Selection) -> Result<Vec<DeadGroup>, Error> {
        let text = "SELECT signal_type, reason_group, max(reason), count(*), min(since), max(since) FROM signalbus_hold WHERE state = 'dead'";
        let mut sql = self.statement(text, &[]);
        selection.push(&mut sql, self.database.dialect().now());
        sql.push(" GROUP BY signal_type, reason_group ORDER BY count(*) DESC, signal_type, reason_group");
        let rows = self.read(sql).await.map_err(super::schema::missing)?;
        let group = |row: Vec<Cell>| {
            let (count, first, last) = (number(&row[3]), number(&row[4]), number(&row[5]));
            let text = |cell: &Cell| cell.clone().unwrap_or_default();
            DeadGroup { signal: text(&row[0]), group: text(&row[1]), reason: text(&row[2]), count, first, last }
        };
        Ok(rows.into_iter().map(group).collect())
    }

    /// Makes all dead letters that are selected wait for another attempt, due now and with no attempt charged, some
    /// thousands in each transaction. Returns how many there were.
    ///
    /// # Errors
    /// The database's error; earlier letters have been redriven.
    pub async fn redrive_selected(&self, selection: &Selection) -> Result<u64, Error> {
        let now = self.database.dialect().now();
        let (mut redriven, mut after) = (0, Some(0_i64));
        while let Some(from) = after {
            let mut sql = self.statement("SELECT id FROM signalbus_hold WHERE state = 'dead' AND id > ?", &[from.into()]);
            selection.push(&mut sql, now);
            sql.push(&format!(" ORDER BY id LIMIT 1 OFFSET {}", PAGE - 1));
            after = self.read(sql).await.map_err(super::schema::missing)?.first().map(|row| number(&row[0]));
            let text =
                "UPDATE signalbus_hold SET state = ?, attempts = 0, due_at = 0 WHERE state = 'dead' AND id > ? AND id <= ?";
            let mut sql = self.statement(text, &[RETRY.into(), from.into(), after.unwrap_or(i64::MAX).into()]);
            selection.push(&mut sql, now);
            let mut session = self.database.session(None);
            session.begin(Purpose::Write).await?;
            redriven += session.execute_and_commit(sql).await?;
        }
        Ok(redriven)
    }

    /// Returns a dead letter, or `None` if there is none with this number.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, Error> {
        let letter = self.read(self.statement(&format!("{LETTERS} AND id = ?"), &[id.into()])).await;
        Ok(letter.map_err(super::schema::missing)?.first().map(|row| DeadLetter::read(row)))
    }

    /// Makes dead letters wait for another attempt, due now and with no attempt charged. Returns how many there were.
    ///
    /// # Errors
    /// The database's error; earlier letters have been redriven.
    pub async fn redrive(&self, letters: &[i64]) -> Result<u64, Error> {
        let mut redriven = 0;
        let mut session = self.database.session(None);
        for chunk in letters.chunks(KEYS_PER_STATEMENT) {
            let mut sql = self.statement(
                "UPDATE signalbus_hold SET state = ?, attempts = 0, due_at = 0 WHERE state = ? AND ",
                &[RETRY.into(), DEAD.into()],
            );
            numbered(&mut sql, chunk);
            session.begin(Purpose::Write).await?;
            redriven += session.execute_and_commit(sql).await.map_err(super::schema::missing)?;
        }
        Ok(redriven)
    }
}

impl SignalTable {
    /// Returns the row of a dead letter, or `None` if it is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_row(&self, letter: &DeadLetter) -> Result<Option<DeadRow>, Error> {
        let signal = self.dead_signal(letter).await?;
        let named = |signal: Signal| {
            let names = self.table.columns.iter().map(|column| column.name.clone());
            names.zip(signal.values.iter().map(text)).collect()
        };
        Ok(signal.map(named))
    }

    /// Returns a dead letter's row as its plugin received it last, or `None` if it is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_signal(&self, letter: &DeadLetter) -> Result<Option<Signal>, Error> {
        let columns = self.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
        let text = format!("SELECT {columns} FROM signalbus_hold h WHERE h.id = ?");
        let mut session = self.database.session(None);
        session.begin(Purpose::Write).await?;
        let holds = session.rows(self.statement(&text, &[letter.id.into()])).await?;
        let row = session.signals(self.reread(&[&letter.key], ""), self.table.clone(), self.key_extras(), None).await?.last();
        session.commit().await?;
        let hold = holds.first().and_then(|row| row[0].as_deref()).and_then(Hold::parse);
        Ok(row.zip(hold).map(|(row, hold)| self.identity.signal(row, hold.seed, hold.attempts.saturating_sub(1))))
    }

    /// Deletes dead letters of this type, and their rows unless they were changed since. Returns how many letters
    /// there were.
    ///
    /// # Errors
    /// The database's error; earlier letters have been deleted.
    pub async fn discard(&self, letters: &[DeadLetter]) -> Result<u64, Error> {
        let mut discarded = 0;
        let mut session = self.database.session(None);
        for chunk in letters.chunks(KEYS_PER_STATEMENT) {
            let ids: Vec<i64> = chunk.iter().map(|letter| letter.id).collect();
            session.begin(Purpose::Write).await?;
            let columns = self.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
            let text =
                format!("SELECT h.signal_key, {columns} FROM signalbus_hold h WHERE h.signal_type = ? AND h.state = ? AND ");
            let mut sql = self.statement(&text, &[self.signal_type.name.as_str().into(), DEAD.into()]);
            numbered(&mut sql, &ids);
            let found = session.rows(sql).await?;
            let holds: HashMap<&str, Hold> =
                found.iter().filter_map(|row| Some((row[0].as_deref()?, Hold::parse(row[1].as_deref()?)?))).collect();
            if holds.is_empty() {
                session.rollback().await?;
                continue;
            }
            let keys: Vec<&str> = holds.keys().copied().collect();
            let lock = self.database.dialect().lock_rows(self.table.lockable);
            let lock = if self.table.view.is_some() { "" } else { lock.trim_end_matches(" SKIP LOCKED") };
            let rows = session.signals(self.reread(&keys, lock), self.table.clone(), self.key_extras(), None).await?.all();
            let stands = |row: &&Row| holds.get(row.key.as_str()).is_some_and(|hold| hold.holds(&self.table, &row.values));
            let standing: Vec<&Row> = rows.iter().filter(stands).collect();
            let keys: Vec<&str> = standing.iter().map(|row| row.key.as_str()).collect();
            if !keys.is_empty() {
                for delete in self.delete_children(&keys) {
                    session.execute(delete).await?;
                }
                let mut sql = self.statement(&self.texts.remove, &[]);
                self.database.dialect().key_in(&mut sql, &self.table, &keys);
                let versions: Vec<_> = standing.iter().map(|row| (row.key.as_str(), row.version)).collect();
                self.database.dialect().guard(&mut sql, &self.table, &versions, session.connection());
                let mut deleted = session.execute(sql).await?;
                if !self.table.mark.is_empty() {
                    let shown = session.signals(self.reread(&keys, ""), self.table.clone(), self.key_extras(), None).await?.len;
                    deleted = deleted.saturating_sub(shown as u64);
                }
                if deleted < keys.len() as u64 {
                    session.rollback().await?;
                    let name = self.table.name.join(".");
                    return Err(Error::Table(format!(
                        "table \"{name}\": the database keeps rows from being deleted; see its triggers, rules and policies"
                    )));
                }
            }
            let text = "DELETE FROM signalbus_hold WHERE signal_type = ? AND state = ? AND ";
            let mut sql = self.statement(text, &[self.signal_type.name.as_str().into(), DEAD.into()]);
            numbered(&mut sql, &ids);
            discarded += session.execute_and_commit(sql).await?;
        }
        Ok(discarded)
    }
}

/// Appends `id IN (…)`.
fn numbered(sql: &mut Sql, ids: &[i64]) {
    sql.push("id IN (").list(", ", ids, |sql, id| {
        sql.arg(*id);
    });
    sql.push(")");
}

impl DeadLetter {
    fn read(row: &[Cell]) -> Self {
        Self {
            id: number(&row[0]),
            signal: row[1].clone().unwrap_or_default(),
            key: row[2].clone().unwrap_or_default(),
            attempts: number(&row[3]),
            reason: row[4].clone().unwrap_or_default(),
            died_at: number(&row[5]),
            group: row[6].clone().unwrap_or_default(),
        }
    }
}
