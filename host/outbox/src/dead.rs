//! Dead letters: signals that are not retried until someone redrives them.
//!
//! A letter is deleted only when its row is back in its table, or when it is discarded by a command.
//! Next: `redrive` in `signalbus-relay`; `settle` writes the letters.

use super::database::{Cell, ExtraColumns, Purpose, Row, number};
use super::identity::Seed;
use super::sql::{Arg, Sql};
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
    /// Milliseconds since 1970, by the database's clock.
    pub died_at: i64,
}

/// The row of a dead letter: the name of each column, and its value in the database's text form.
pub type DeadRow = Vec<(String, Option<String>)>;

const COLUMNS: &str = "SELECT id, signal_type, signal_key, attempts, reason, died_at FROM signalbus_dead_letter";

impl Outbox {
    /// Returns up to `limit` dead letters, oldest first, of these types, or of all types if `signals` is empty.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_letters(&self, signals: &[String], limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.dead_letters_after(signals, 0, limit).await
    }

    /// Like [`dead_letters`](Self::dead_letters), but only letters with a number above `after`.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_letters_after(&self, signals: &[String], after: i64, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut sql = self.statement(&format!("{COLUMNS} WHERE id > ?"), &[after.into()]);
        if !signals.is_empty() {
            sql.push(" AND signal_type IN (");
            sql.list(", ", signals, |sql, signal| {
                sql.arg(signal.as_str());
            });
            sql.push(")");
        }
        sql.push(&format!(" ORDER BY id LIMIT {limit}"));
        let rows = self.read(sql).await.map_err(super::schema::missing)?;
        Ok(rows.iter().map(|row| DeadLetter::read(row)).collect())
    }

    /// Returns all dead letters of these types, or of all types if `signals` is empty.
    ///
    /// # Errors
    /// The database's error.
    pub async fn all_dead_letters(&self, signals: &[String]) -> Result<Vec<DeadLetter>, Error> {
        const PAGE: usize = 500;
        let mut letters: Vec<DeadLetter> = Vec::new();
        loop {
            let after = letters.last().map_or(0, |letter| letter.id);
            let page = self.dead_letters_after(signals, after, PAGE).await?;
            let last = page.len() < PAGE;
            letters.extend(page);
            if last {
                return Ok(letters);
            }
        }
    }

    /// Returns a dead letter with its row, or `None` if there is none with this number.
    ///
    /// # Errors
    /// The database's error.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<(DeadLetter, DeadRow)>, Error> {
        let letter = self.read(self.statement(&format!("{COLUMNS} WHERE id = ?"), &[id.into()])).await;
        let Some(letter) = letter.map_err(super::schema::missing)?.first().map(|row| DeadLetter::read(row)) else {
            return Ok(None);
        };
        let shown = self.database.dialect().shown("value");
        let text = format!("SELECT name, {shown} FROM signalbus_dead_value WHERE letter_id = ? ORDER BY position");
        let rows = self.read(self.statement(&text, &[id.into()])).await?;
        let cell = |mut row: Vec<Cell>| (row[0].take().unwrap_or_default(), row[1].take());
        Ok(Some((letter, rows.into_iter().map(cell).collect())))
    }

    /// Permanently deletes a dead letter. Returns `false` if there is none with this number.
    ///
    /// # Errors
    /// The database's error.
    pub async fn discard(&self, id: i64) -> Result<bool, Error> {
        let mut session = self.database.session();
        session.begin(Purpose::Write).await?;
        let text = "DELETE FROM signalbus_dead_letter WHERE id = ?";
        let discarded = session.execute(self.statement(text, &[id.into()])).await.map_err(super::schema::missing)?;
        session.execute(self.statement("DELETE FROM signalbus_dead_value WHERE letter_id = ?", &[id.into()])).await?;
        session.commit().await?;
        Ok(discarded == 1)
    }
}

impl SignalTable {
    /// Puts a dead letter's row back into the table unchanged, with no attempt charged. Returns `false` if
    /// this type has no such letter.
    ///
    /// # Errors
    /// The database's error, such as a duplicate key or a missing column; the letter stays.
    pub async fn redrive(&self, id: i64) -> Result<bool, Error> {
        let mut session = self.database.session();
        session.begin(Purpose::Write).await?;
        let text = "DELETE FROM signalbus_dead_letter WHERE id = ? AND signal_type = ?";
        let args = [id.into(), Arg::from(self.signal_type.name.as_str())];
        if session.execute(self.statement(text, &args)).await? != 1 {
            session.rollback().await?;
            return Ok(false);
        }
        let text = "SELECT name FROM signalbus_dead_value WHERE letter_id = ? ORDER BY position";
        let names = session.rows(self.statement(text, &[id.into()])).await?;
        let restored = session.execute(self.restore(id, &names)?).await;
        restored.map_err(|error| match error {
            Error::Refused { message, passing: false } => Error::Table(format!("dead letter {id}: {message}")),
            error => error,
        })?;
        session.execute(self.statement("DELETE FROM signalbus_dead_value WHERE letter_id = ?", &[id.into()])).await?;
        session.commit().await?;
        Ok(true)
    }

    /// Returns a dead letter's row as its plugin would receive it. The row is inserted, read and rolled
    /// back, so that every value has the type of its column.
    ///
    /// # Errors
    /// The database's error, such as a duplicate key, a missing column or a missing privilege.
    pub async fn dead_signal(&self, letter: &DeadLetter) -> Result<Signal, Error> {
        let mut session = self.database.session();
        session.begin(Purpose::Write).await?;
        let text = "SELECT name FROM signalbus_dead_value WHERE letter_id = ? ORDER BY position";
        let names = session.rows(self.statement(text, &[letter.id.into()])).await?;
        session.execute(self.restore(letter.id, &names)?).await?;
        let mut sql = self.statement("SELECT ", &[]);
        sql.push(&self.texts.columns).push(", ").push(&self.texts.key).push(" FROM ").push(&self.texts.table).push(" t WHERE ");
        self.database.dialect().key_in(&mut sql, &self.table, &[&letter.key]);
        let extras = ExtraColumns { key: true, ..ExtraColumns::default() };
        let row = session.signals(sql, self.table.clone(), extras).await?.last()?;
        session.rollback().await?;
        let row = row.ok_or_else(|| Error::Table(format!("dead letter {}: its row now has another key", letter.id)))?;
        Ok(self.identity.signal(Row { attempts: letter.attempts.saturating_sub(1), ..row }, Seed::random()))
    }

    /// One INSERT from the kept values; columns added since take their defaults.
    fn restore(&self, id: i64, names: &[Vec<Cell>]) -> Result<Sql, Error> {
        let dialect = self.database.dialect();
        let mut columns = Vec::new();
        let mut values = self.statement("", &[]);
        for (position, name) in names.iter().enumerate() {
            let name = name[0].as_deref().unwrap_or_default();
            let Some(column) = self.table.columns.iter().find(|column| column.name == name) else {
                return Err(Error::Table(format!(
                    "dead letter {id}: table \"{}\" no longer has column \"{name}\"",
                    self.table.name.join(".")
                )));
            };
            if column.generated {
                continue;
            }
            let kept =
                format!("(SELECT v.value FROM signalbus_dead_value v WHERE v.letter_id = {id} AND v.position = {position})");
            if !columns.is_empty() {
                values.push(", ");
            }
            values.push(&dialect.restored(column, &kept));
            columns.push(dialect.quote(name));
        }
        let mut sql = self.statement("INSERT INTO ", &[]);
        sql.push(&self.texts.table).push(" (").push(&columns.join(", ")).push(")");
        sql.push(dialect.overriding()).push(" SELECT ").push(&values.text);
        Ok(sql)
    }
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
        }
    }
}
