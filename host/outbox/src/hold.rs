//! Holds: why a row stays in its table. It waits for another attempt (`retry`), is a dead letter (`dead`), or was
//! sent and could not be deleted (`sent`).
//!
//! Rows never move. A hold belongs to one version of a row: it keeps a fingerprint of the columns that the row had,
//! so that a row that was changed, or another one with its key, inherits nothing from it. Next: `settle`, which
//! writes holds; `window`, which leaves held rows out; `dead`, which lists and ends them.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::batch::{Batch, Mark};
use super::database::{Cell, Purpose, Row, Session, number};
use super::identity::{Seed, hash};
use super::settle::KEYS_PER_STATEMENT;
use super::sql::Arg;
use super::table::Table;
use super::trial::{Rule, is_broken};
use super::{Error, SignalTable, Worker, millis};
use signalbus_core::settlement::Settlement;
use signalbus_core::signal::Value;

/// Waits for its next attempt.
pub(super) const RETRY: &str = "retry";
/// Is not tried again until somebody redrives it.
pub(super) const DEAD: &str = "dead";

/// Was sent, and could not be deleted: only its deletion is tried again.
pub(super) const SENT: &str = "sent";

/// What a hold says of its row.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) seed: Seed,
    pub(crate) attempts: u32,
    fingerprint: String,
    columns: String,
}

/// A row that is on record as sent.
pub(super) struct SentRow {
    pub(super) key: String,
    pub(super) order_key: String,
    pub(super) since: i64,
    pub(super) hold: Hold,
}

/// What is to be written about a signal.
pub(super) struct Entry<'a> {
    index: usize,
    state: &'static str,
    attempts: u32,
    pub(super) delay: Duration,
    pub(super) reason: &'a str,
    pub(super) since: Option<i64>,
    /// The row as it is now, if it is not the one that was read.
    values: Option<Vec<Value>>,
}

impl<'a> Entry<'a> {
    /// What a settlement defers and buries.
    pub(super) fn of(settlement: &'a Settlement) -> impl Iterator<Item = Self> {
        let deferred = settlement.defer.iter().map(|deferral| {
            let (index, attempts, delay) = (deferral.index, deferral.attempts, deferral.delay);
            Self { index, state: RETRY, attempts, delay, reason: &deferral.reason, since: None, values: None }
        });
        let buried = settlement.bury.iter().map(|burial| {
            let (index, attempts, delay) = (burial.index, burial.attempts, Duration::ZERO);
            Self { index, state: DEAD, attempts, delay, reason: &burial.reason, since: None, values: None }
        });
        deferred.chain(buried)
    }

    /// A row that was read in this transaction; it gives its values away.
    pub(super) fn of_row(index: usize, state: &'static str, attempts: u32, reason: &'a str, row: &mut Row) -> Self {
        let values = Some(std::mem::take(&mut row.values));
        Self { index, state, attempts, delay: Duration::ZERO, reason, since: None, values }
    }

    /// A signal that was sent and is still there, as these values unless they are those that were read.
    pub(super) fn sent(index: usize, mark: &Mark, reason: &'a str, values: Option<Vec<Value>>) -> Self {
        let (tries, since) = mark.tries.map_or((0, None), |(tries, since)| (tries, Some(since)));
        let delay = Duration::from_secs(1 << tries.min(9));
        Self { index, state: SENT, attempts: tries + 1, delay, reason, since, values }
    }

    /// A signal that was sent, and whose row somebody has locked: maybe to change it.
    pub(super) fn locked(index: usize, mark: &Mark) -> Self {
        let entry = Self::sent(index, mark, "the row is locked by another transaction", None);
        Self { delay: entry.delay.min(Duration::from_secs(4)), ..entry }
    }
}

impl Hold {
    /// The columns that `parse` reads, of a hold called `h`.
    pub(super) const COLUMNS: [&str; 4] = ["h.id_seed", "h.fingerprint", "h.attempts", "h.columns"];

    /// Reads its columns, joined with commas.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ',');
        let mut next = || parts.next().map(str::to_owned);
        let (seed, fingerprint) = (Seed::from_text(&next()?), next()?);
        Some(Self { seed, fingerprint, attempts: next()?.parse().ok()?, columns: next()? })
    }

    /// Whether it belongs to this version of its row. A column that the table has lost tells nothing.
    pub(super) fn holds(&self, table: &Table, values: &[Value]) -> bool {
        let covered: Option<Vec<usize>> = serde_json::from_str::<Vec<String>>(&self.columns).ok().and_then(|names| {
            let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
            names.iter().map(place).collect()
        });
        let same = |covered: Vec<usize>| fingerprint(covered.iter().map(|&n| &values[n])) == self.fingerprint;
        is_broken(Rule::HoldOfVersion) || covered.is_none_or(same)
    }
}

/// 128 bits from the text of values.
fn fingerprint<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> String {
    let half = |key: u64| {
        let mut hasher = SipHasher13::new_with_keys(key, 0x5369_676e_616c_4275);
        values.clone().for_each(|value| hash(&mut hasher, value));
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(1), half(2))
}

impl Worker<'_> {
    /// Writes holds of rows that still are what was read. What was replaced is sent as it is now; returns how many
    /// rows were.
    pub(super) async fn hold(&mut self, batch: &Batch, mut entries: Vec<Entry<'_>>) -> Result<usize, Error> {
        if entries.is_empty() {
            return Ok(0);
        }
        let positions: Vec<usize> = entries.iter().map(|entry| entry.index).collect();
        // Those of earlier attempts, and of a settle whose commit was not heard of.
        self.forget(batch, &positions).await?;
        let unread: Vec<usize> = entries.iter().filter(|entry| entry.values.is_none()).map(|entry| entry.index).collect();
        let standing = self.compared(batch, &unread, "").await?;
        entries.retain(|entry| entry.values.is_some() || standing.here.contains(&entry.index));
        let (stored, columns) = self.lane.covered();
        for chunk in entries.chunks(KEYS_PER_STATEMENT) {
            let text = "INSERT INTO signalbus_hold (signal_type, signal_key, order_key, fingerprint, columns, id_seed, state, \
                 attempts, due_at, since, reason, reason_group) VALUES ";
            let mut sql = self.lane.statement(text, &[]);
            let now = self.lane.database.dialect().now();
            sql.list(", ", chunk, |sql, entry| {
                let signal = &batch.signals[entry.index];
                let seed = batch.marks[entry.index].seed.to_text();
                let values = entry.values.as_ref().unwrap_or(&signal.values);
                let fingerprint = fingerprint(stored.iter().map(|&n| &values[n]));
                let reason = shortened(entry.reason);
                let texts = [
                    &self.lane.signal_type.name,
                    &signal.key,
                    &signal.order_key,
                    &fingerprint,
                    &columns,
                    &seed,
                    &entry.state.to_owned(),
                ];
                sql.push("(").list(", ", texts, |sql, text| {
                    sql.arg(text.as_str());
                });
                sql.push(", ").arg(entry.attempts).push(", ").arg(millis(entry.delay)).push(" + ").push(now);
                sql.push(", ");
                match entry.since {
                    Some(since) => sql.arg(since),
                    None => sql.push(now),
                };
                sql.push(", ").arg(reason.as_str()).push(", ").arg(reason_group(&reason).as_str()).push(")");
            });
            self.session.execute(sql).await?;
        }
        Ok(standing.replaced.len())
    }

    /// Takes rows that are on record as sent, to try their deletion again. Others leave them alone for a while.
    pub(super) async fn take_undeleted(&mut self) -> Result<Vec<SentRow>, Error> {
        let lane = self.lane;
        let signal = Arg::from(lane.signal_type.name.as_str());
        let columns = lane.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
        let text = format!(
            "SELECT h.id, h.signal_key, h.order_key, h.since, {columns} FROM signalbus_hold h WHERE h.signal_type = ? \
             AND h.state = ? AND h.due_at <= NOW ORDER BY h.due_at LIMIT {KEYS_PER_STATEMENT}"
        );
        let rows = self.session.rows(lane.timed(&text, &[signal, SENT.into()])).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let args = [millis(Duration::from_secs(30)).into()];
        let mut sql = lane.timed("UPDATE signalbus_hold SET due_at = NOW + ? WHERE id IN (", &args);
        sql.list(", ", &rows, |sql, row| {
            sql.arg(number::<i64>(&row[0]));
        });
        sql.push(")");
        self.session.execute(sql).await?;
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let sent = |row: Vec<Option<String>>| {
            let hold = row[4].as_deref().and_then(Hold::parse)?;
            Some(SentRow { key: text(&row[1]), order_key: text(&row[2]), since: number(&row[3]), hold })
        };
        Ok(rows.into_iter().filter_map(sent).collect())
    }

    /// Returns which of these rows are on record as sent, in the transaction that deletes them.
    pub(super) async fn recorded(&mut self, batch: &Batch, positions: &[usize]) -> Result<Vec<usize>, Error> {
        let lane = self.lane;
        let mut recorded: HashSet<String> = HashSet::with_capacity(positions.len());
        for chunk in positions.chunks(KEYS_PER_STATEMENT) {
            let signal = lane.signal_type.name.as_str();
            let mut sql = lane.statement("SELECT signal_key FROM signalbus_hold WHERE state = ? AND ", &[SENT.into()]);
            lane.database.dialect().held_keys(&mut sql, signal, &mut chunk.iter().map(|&n| batch.signals[n].key.as_str()));
            recorded.extend(self.session.rows(sql).await?.into_iter().flatten().flatten());
        }
        Ok(positions.iter().copied().filter(|&n| recorded.contains(&batch.signals[n].key)).collect())
    }

    /// Forgets the holds under the keys of these signals.
    pub(super) async fn forget(&mut self, batch: &Batch, positions: &[usize]) -> Result<(), Error> {
        let keys: Vec<&str> = positions.iter().map(|&n| batch.signals[n].key.as_str()).collect();
        self.forget_keys(&keys).await
    }

    pub(super) async fn forget_keys(&mut self, keys: &[impl AsRef<str>]) -> Result<(), Error> {
        for chunk in keys.chunks(KEYS_PER_STATEMENT) {
            let signal = self.lane.signal_type.name.as_str();
            let mut sql = self.lane.statement("DELETE FROM signalbus_hold WHERE ", &[]);
            self.lane.database.dialect().held_keys(&mut sql, signal, &mut chunk.iter().map(AsRef::as_ref));
            self.session.execute(sql).await?;
        }
        Ok(())
    }
}

impl SignalTable {
    /// The columns that a fingerprint covers, and their names.
    fn covered(&self) -> (Vec<usize>, String) {
        let stored: Vec<usize> = (0..self.table.columns.len()).filter(|n| !self.table.computed.contains(n)).collect();
        let names: Vec<&str> = stored.iter().map(|&n| self.table.columns[n].name.as_str()).collect();
        let names = serde_json::json!(names).to_string();
        (stored, names)
    }

    /// Removes holds of dead letters, and of what was sent, whose rows are gone or were changed: what was changed is sent
    /// as it is now. Looks through up to `limit` holds of any type, from the number `after` on. Returns the last one, if
    /// there may be more, and whether any was removed.
    ///
    /// # Errors
    /// The database's error; nothing was changed.
    pub async fn sweep(&self, after: i64, limit: usize) -> Result<(Option<i64>, bool), Error> {
        let mut session = self.database.session(Some(&self.signal_type.name));
        let columns = self.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
        let text = format!(
            "SELECT h.signal_key, {columns}, h.id, CASE WHEN h.signal_type = ? AND h.state <> ? THEN 1 ELSE 0 END \
             FROM (SELECT * FROM signalbus_hold WHERE id > ? ORDER BY id LIMIT {limit}) h ORDER BY h.id"
        );
        let args = [Arg::from(self.signal_type.name.as_str()), RETRY.into(), after.into()];
        session.begin(Purpose::Read).await?;
        let mut found = session.rows(self.statement(&text, &args)).await?;
        session.commit().await?;
        let more = (found.len() == limit).then(|| found.last().map(|row| number(&row[2]))).flatten();
        found.retain(|row| number::<u8>(&row[3]) == 1);
        if found.is_empty() {
            return Ok((more, false));
        }
        session.begin(Purpose::Write).await?;
        let lost: Vec<i64> = self.orphaned(&mut *session, &found).await?.into_iter().map(|n| number(&found[n][2])).collect();
        for chunk in lost.chunks(KEYS_PER_STATEMENT) {
            let mut sql = self.statement("DELETE FROM signalbus_hold WHERE id IN (", &[]);
            sql.list(", ", chunk, |sql, id| {
                sql.arg(*id);
            });
            sql.push(")");
            session.execute(sql).await?;
        }
        session.commit().await?;
        if !lost.is_empty() {
            self.rescan().await;
        }
        Ok((more, !lost.is_empty()))
    }

    /// Returns the places of those holds whose rows are gone, or were changed. Each begins with its key and the columns that
    /// [`Hold::parse`] reads.
    pub(super) async fn orphaned(&self, session: &mut dyn Session, held: &[Vec<Cell>]) -> Result<Vec<usize>, Error> {
        let mut lost = Vec::new();
        let most = self.fitting(KEYS_PER_STATEMENT);
        for (begin, chunk) in held.chunks(most).enumerate().map(|(n, chunk)| (n * most, chunk)) {
            let keys: Vec<&str> = chunk.iter().map(|hold| hold[0].as_deref().unwrap_or_default()).collect();
            let rows = session.signals(self.reread(&keys, ""), self.table.clone(), self.key_extras(), None).await?.all();
            let rows: HashMap<&str, &Row> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
            for (n, (hold, key)) in chunk.iter().zip(keys).enumerate() {
                let parsed = hold[1].as_deref().and_then(Hold::parse);
                if !rows.get(key).zip(parsed).is_some_and(|(row, hold)| hold.holds(&self.table, &row.values)) {
                    lost.push(begin + n);
                }
            }
        }
        Ok(lost)
    }
}

/// The longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 4000;

/// What reasons have in common that differ in numbers and ids only.
pub(super) fn reason_group(reason: &str) -> String {
    let mut hasher = SipHasher13::new();
    let words = reason.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        // A number, or an id: a word with digits in it.
        let word = if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word };
        hasher.write(word.as_bytes());
        hasher.write(&[0]);
    }
    format!("{:08x}", hasher.finish() >> 32)
}

/// A reason that every database can hold: bounded, and without NUL characters.
fn shortened(reason: &str) -> String {
    let end = reason.floor_char_boundary(LONGEST_REASON);
    reason[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, TableColumn};

    fn table(names: &[&str]) -> Table {
        let column = |name: &&str| TableColumn {
            name: (*name).to_owned(),
            db_type: String::new(),
            sql_type: String::new(),
            kind: Kind::Text,
            nullable: true,
            generated: false,
        };
        Table { columns: names.iter().map(column).collect(), ..Table::default() }
    }

    #[test]
    fn reasons_that_differ_in_numbers_are_one_group() {
        let group = reason_group("order 17 of 3f9a-11: no route (attempt 20 of 20)");
        assert_eq!(group, reason_group("order 4711 of 7c0e-93: no route (attempt 3 of 20)"));
        assert_ne!(group, reason_group("order 17 of 3f9a-11: no channel (attempt 20 of 20)"));
    }

    #[test]
    fn a_hold_belongs_to_one_version_of_a_row() {
        let text = |text: &str| Value::Text(text.into());
        let kept = fingerprint([Value::Int64(1), text("ann")].iter());
        let hold = Hold::parse(&format!("00,{kept},3,[\"id\",\"name\"]")).unwrap();
        assert_eq!(hold.attempts, 3);
        assert!(hold.holds(&table(&["id", "name"]), &[Value::Int64(1), text("ann")]));
        // The same values in other types, in another order, with another column.
        assert!(hold.holds(&table(&["id", "name"]), &[Value::Decimal("1".into()), text("ann")]));
        assert!(hold.holds(&table(&["name", "new", "id"]), &[text("ann"), text("x"), Value::Int64(1)]));
        assert!(hold.holds(&table(&["id"]), &[Value::Int64(1)]));
        assert!(!hold.holds(&table(&["id", "name"]), &[Value::Int64(1), text("bob")]));
        assert!(!hold.holds(&table(&["id", "name"]), &[Value::Int64(1), Value::Null]));
    }
}
