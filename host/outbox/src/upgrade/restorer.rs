//! Puts the dead letters of one signal type back into their table, page by page, and holds them.
//!
//! Leaves a letter where it is, with a reason, unless its row is what it was. Next: `hold`, which says what they are now.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{LeftLetters, PAGE, PAGE_BYTES};
use crate::batch::{Batch, Mark};
use crate::database::{Cell, ExtraColumns, Purpose, Row, number};
use crate::hold::{DEAD, Entry, reason_group};
use crate::identity::Seed;
use crate::sql::Sql;
use crate::table::Table;
use crate::{Error, SignalTable, Worker};
use signalbus_core::signal::Signal;

/// A dead letter of version 1, without its values.
struct Letter {
    id: i64,
    key: String,
    attempts: u32,
    reason: String,
    died_at: i64,
    /// About so many bytes.
    size: u64,
}

/// The columns of a letter: the position of each among its values, and its name.
type Shape = Vec<(i64, String)>;
/// The position of a value in a letter, and that of its column in the table.
type Places = Vec<(i64, usize)>;

/// What became of letters in one transaction.
enum Attempt {
    Restored(u64),
    /// Nothing was changed, because of these letters.
    Undone(HashMap<i64, String>),
}

/// Puts the letters of one signal type back.
pub(super) struct Restorer<'a> {
    pub(super) worker: Worker<'a>,
    /// Where they belong: no view.
    table: Table,
    pub(super) restored: u64,
    /// By what the reasons have in common.
    pub(super) left: BTreeMap<String, LeftLetters>,
}

impl<'a> Restorer<'a> {
    pub(super) fn new(lane: &'a SignalTable, table: Table) -> Self {
        Self { worker: lane.session(), table, restored: 0, left: BTreeMap::new() }
    }

    pub(super) fn statement(&self, text: &str) -> Sql {
        self.worker.lane.statement(text, &[])
    }

    pub(super) fn signal(&self) -> &'a str {
        &self.worker.lane.signal_type.name
    }

    pub(super) async fn restore(&mut self) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let letters = self.letters(after).await?;
            let Some(last) = letters.last() else { return Ok(()) };
            after = last.id;
            for (shape, letters) in self.by_shape(letters).await? {
                match self.places(&shape) {
                    Ok(places) => self.put_back(&places, letters).await?,
                    Err(reason) => letters.iter().for_each(|letter| self.leave(letter, &reason)),
                }
            }
        }
    }

    async fn letters(&mut self, after: i64) -> Result<Vec<Letter>, Error> {
        let mut sql = self.statement("SELECT id, signal_key, attempts, reason, died_at FROM signalbus_dead_letter WHERE id > ");
        sql.arg(after).push(" AND signal_type = ").arg(self.signal()).push(&format!(" ORDER BY id LIMIT {PAGE}"));
        let text = |cell: &Cell| cell.clone().unwrap_or_default();
        let letter = |row: Vec<Cell>| {
            let (id, attempts, died_at) = (number(&row[0]), number(&row[2]), number(&row[4]));
            Letter { id, key: text(&row[1]), attempts, reason: text(&row[3]), died_at, size: 0 }
        };
        Ok(self.read(sql).await?.into_iter().map(letter).collect())
    }

    /// A table may have been altered between two letters.
    async fn by_shape(&mut self, letters: Vec<Letter>) -> Result<BTreeMap<Shape, Vec<Letter>>, Error> {
        let mut sql = self.statement("SELECT letter_id, position, name, length(value) FROM signalbus_dead_value WHERE ");
        numbered(&mut sql, "letter_id", letters.iter().map(|letter| letter.id));
        sql.push(" ORDER BY letter_id, position");
        let mut shapes: HashMap<i64, (Shape, u64)> = HashMap::new();
        for mut row in self.read(sql).await? {
            let (shape, size) = shapes.entry(number(&row[0])).or_default();
            shape.push((number(&row[1]), row[2].take().unwrap_or_default()));
            *size += number::<u64>(&row[3]);
        }
        let mut groups: BTreeMap<Shape, Vec<Letter>> = BTreeMap::new();
        for letter in letters {
            let (shape, size) = shapes.remove(&letter.id).unwrap_or_default();
            groups.entry(shape).or_default().push(Letter { size, ..letter });
        }
        Ok(groups)
    }

    /// Finds the columns of letters in their table. What the database computes is not written.
    fn places(&self, shape: &[(i64, String)]) -> Result<Places, String> {
        let (table, columns) = (self.table.name.join("."), &self.table.columns);
        let mut places = Vec::with_capacity(shape.len());
        for (position, name) in shape {
            match columns.iter().position(|column| column.name == *name) {
                Some(n) if columns[n].generated => {}
                Some(n) => places.push((*position, n)),
                None => return Err(format!("table \"{table}\" no longer has column \"{name}\"")),
            }
        }
        match self.table.key.iter().find(|n| places.iter().all(|(_, place)| place != *n)) {
            Some(&n) => {
                Err(format!("column \"{}\", of the primary key of table \"{table}\", is not among its values", columns[n].name))
            }
            None => Ok(places),
        }
    }

    /// Puts letters back, as many as possible at once: the guilty ones are found by halving.
    async fn put_back(&mut self, places: &[(i64, usize)], letters: Vec<Letter>) -> Result<(), Error> {
        let mut parts = portions(self.free(letters).await?);
        while let Some(mut part) = parts.pop() {
            match self.attempt(places, &part).await {
                Ok(Attempt::Restored(restored)) => self.restored += restored,
                Ok(Attempt::Undone(faults)) => {
                    part.retain(|letter| match faults.get(&letter.id) {
                        Some(reason) => {
                            self.leave(letter, reason);
                            false
                        }
                        None => true,
                    });
                    parts.push(part);
                }
                Err(error @ Error::Refused { .. }) if !error.is_exhausted() => {
                    // (The transaction may have ended by itself.)
                    let _ = self.worker.session.rollback().await;
                    if let [letter] = &part[..] {
                        self.leave(letter, &error.to_string());
                        continue;
                    }
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those whose key is not taken: neither by a row, nor by an earlier letter.
    async fn free(&mut self, letters: Vec<Letter>) -> Result<Vec<Letter>, Error> {
        let dialect = self.worker.lane.database.dialect();
        let mut sql = self.statement("SELECT ");
        sql.push(&dialect.joined_text(&self.table, &self.table.key));
        sql.push(" FROM ").push(&dialect.table_name(&self.table.name)).push(" t WHERE ");
        dialect.key_in(&mut sql, &self.table, &keys(&letters));
        let mut taken: HashSet<String> = self.read(sql).await?.into_iter().flatten().flatten().collect();
        let (free, others): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| taken.insert(letter.key.clone()));
        others.iter().for_each(|letter| self.leave(letter, "another row has their key"));
        Ok(free)
    }

    /// Puts letters back in one transaction: all of them, or none.
    async fn attempt(&mut self, places: &[(i64, usize)], letters: &[Letter]) -> Result<Attempt, Error> {
        if letters.is_empty() {
            return Ok(Attempt::Restored(0));
        }
        let dialect = self.worker.lane.database.dialect();
        self.worker.session.begin(Purpose::Write).await?;
        let mut sql = self.statement("SELECT id FROM signalbus_dead_letter WHERE ");
        numbered(&mut sql, "id", letters.iter().map(|letter| letter.id));
        sql.push(dialect.for_update());
        // Another command may be at it, too.
        let still: HashSet<i64> = self.worker.session.rows(sql).await?.iter().map(|row| number(&row[0])).collect();
        let letters: Vec<&Letter> = letters.iter().filter(|letter| still.contains(&letter.id)).collect();
        if letters.is_empty() {
            return self.worker.session.rollback().await.map(|()| Attempt::Restored(0));
        }
        let insert = self.insert(places, &letters);
        self.worker.session.execute(insert).await?;
        let mut faults = self.faults(places, &letters).await?;
        if faults.is_empty() {
            faults = self.hold(&letters).await?;
        }
        if !faults.is_empty() {
            return self.worker.session.rollback().await.map(|()| Attempt::Undone(faults));
        }
        for (table, column) in [("signalbus_dead_value", "letter_id"), ("signalbus_dead_letter", "id")] {
            let mut sql = self.statement("DELETE FROM ");
            numbered(sql.push(table).push(" WHERE "), column, letters.iter().map(|letter| letter.id));
            self.worker.session.execute(sql).await?;
        }
        self.worker.session.commit().await?;
        Ok(Attempt::Restored(letters.len() as u64))
    }

    /// Inserts rows from the values of their letters; columns that were added since take their defaults.
    fn insert(&self, places: &[(i64, usize)], letters: &[&Letter]) -> Sql {
        let dialect = self.worker.lane.database.dialect();
        let columns = places.iter().map(|&(_, n)| &self.table.columns[n]);
        let names: Vec<String> = columns.clone().map(|column| dialect.quote(&column.name)).collect();
        let restored = |(column, (position, _)): (_, &(i64, usize))| dialect.restored(column, &value_at(*position));
        let values: Vec<String> = columns.zip(places).map(restored).collect();
        let mut sql = self.statement("INSERT INTO ");
        sql.push(&dialect.table_name(&self.table.name)).push(" (").push(&names.join(", ")).push(")");
        sql.push(dialect.overriding()).push(" SELECT ").push(&values.join(", "));
        sql.push(" FROM signalbus_dead_letter l WHERE ");
        numbered(&mut sql, "l.id", letters.iter().map(|letter| letter.id));
        sql
    }

    /// Compares rows that were inserted with their letters. A trigger may have changed one, a rule may have kept it out,
    /// and another type of a column may have rounded it.
    async fn faults(&mut self, places: &[(i64, usize)], letters: &[&Letter]) -> Result<HashMap<i64, String>, Error> {
        let dialect = self.worker.lane.database.dialect();
        let mut sql = self.statement("SELECT l.id, CASE");
        for &(position, n) in places {
            let column = &self.table.columns[n];
            let now = dialect.kept(column, &format!("t.{}", dialect.quote(&column.name)));
            sql.push(&format!(" WHEN {} THEN {n}", dialect.differs(&now, &value_at(position))));
        }
        let columns: Vec<String> =
            places.iter().map(|&(_, n)| format!("t.{}", dialect.quote(&self.table.columns[n].name))).collect();
        sql.push(" ELSE -1 END FROM (SELECT ").push(&columns.join(", "));
        sql.push(", ").push(&dialect.joined_text(&self.table, &self.table.key));
        sql.push(" AS signalbus_key FROM ").push(&dialect.table_name(&self.table.name)).push(" t WHERE ");
        dialect.key_in(&mut sql, &self.table, &keys(letters));
        sql.push(") t JOIN signalbus_dead_letter l ON l.signal_key = t.signalbus_key AND l.signal_type = ");
        // (A range: a list would be looked through for every row.)
        let ids = || letters.iter().map(|letter| letter.id);
        sql.arg(self.signal()).push(" WHERE l.id BETWEEN ").arg(ids().min().unwrap_or_default());
        sql.push(" AND ").arg(ids().max().unwrap_or_default());
        let rows = self.worker.session.rows(sql).await?;
        let found: HashMap<i64, i64> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
        let fault = |letter: &&Letter| {
            let reason = match found.get(&letter.id).map(|n| usize::try_from(*n)) {
                Some(Err(_)) => return None,
                Some(Ok(n)) => format!(
                    "column \"{}\" would not be what it was: by a trigger, or as the column has another type now",
                    self.table.columns[n].name
                ),
                None => "their rows are not there once they are inserted: by a trigger, a rule, or a policy".into(),
            };
            Some((letter.id, reason))
        };
        Ok(letters.iter().filter_map(fault).collect())
    }

    /// Holds rows that were put back as dead letters. Returns those that the signal type does not show.
    async fn hold(&mut self, letters: &[&Letter]) -> Result<HashMap<i64, String>, Error> {
        let mut rows = self.standing(&keys(letters)).await?;
        let (mut shown, mut entries, mut faults) = (Vec::with_capacity(letters.len()), Vec::new(), HashMap::new());
        for letter in letters {
            let Some(mut row) = rows.remove(&letter.key) else {
                faults.insert(letter.id, "the view does not show their rows".to_owned());
                continue;
            };
            let mut entry = Entry::of_row(shown.len(), DEAD, letter.attempts, &letter.reason, &mut row);
            entry.since = Some(letter.died_at);
            entries.push(entry);
            shown.push(row);
        }
        if faults.is_empty() {
            self.worker.hold(&batch_of(shown), entries).await?;
        }
        Ok(faults)
    }

    /// The rows with these keys, as the signal type shows them.
    pub(super) async fn standing(&mut self, keys: &[&str]) -> Result<HashMap<String, Row>, Error> {
        let lane = self.worker.lane;
        let extras = ExtraColumns { key: true, order_key: lane.reads_order_key(), ..ExtraColumns::default() };
        let mut sql = lane.statement("SELECT ", &[]);
        sql.push(&lane.texts.columns).push(", ").push(&lane.texts.key);
        if extras.order_key {
            sql.push(", ").push(&lane.texts.order_key);
        }
        sql.push(" FROM ").push(&lane.texts.from).push(" t WHERE ");
        lane.database.dialect().key_in(&mut sql, &lane.table, keys);
        let rows = self.worker.session.signals(sql, lane.table.clone(), extras, None).await?;
        Ok(rows.all().into_iter().map(|row| (row.key.clone(), row)).collect())
    }

    fn leave(&mut self, letter: &Letter, reason: &str) {
        let signal = self.signal().to_owned();
        let left = LeftLetters { signal, count: 0, first: letter.id, reason: reason.to_owned() };
        self.left.entry(reason_group(reason)).or_insert(left).count += 1;
    }

    async fn read(&mut self, sql: Sql) -> Result<Vec<Vec<Cell>>, Error> {
        self.worker.session.begin(Purpose::Read).await?;
        let rows = self.worker.session.rows(sql).await?;
        self.worker.session.commit().await?;
        Ok(rows)
    }
}

/// Letters, cut into parts that fit into memory; the last part comes first.
fn portions(letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for letter in letters.into_iter().rev() {
        bytes += letter.size;
        if bytes > PAGE_BYTES {
            parts.push(Vec::new());
            bytes = letter.size;
        }
        parts.last_mut().expect("never empty").push(letter);
    }
    parts.iter_mut().for_each(|part| part.reverse());
    parts
}

/// The value at a position of the letter `l`.
fn value_at(position: i64) -> String {
    format!("(SELECT v.value FROM signalbus_dead_value v WHERE v.letter_id = l.id AND v.position = {position})")
}

fn keys<L: std::borrow::Borrow<Letter>>(letters: &[L]) -> Vec<&str> {
    let key = |letter| -> &str { <L as std::borrow::Borrow<Letter>>::borrow(letter).key.as_str() };
    letters.iter().map(key).collect()
}

/// Appends `column IN (…)`.
fn numbered(sql: &mut Sql, column: &str, ids: impl Iterator<Item = i64>) {
    sql.push(column).push(" IN (").list(", ", ids, |sql, id| {
        sql.arg(id);
    });
    sql.push(")");
}

/// Rows that are to be held, none of which was sent under an id of this version.
pub(super) fn batch_of(rows: Vec<Row>) -> Batch {
    let mut batch = Batch::for_claim("", Vec::with_capacity(rows.len()));
    for Row { key, order_key, values, .. } in rows {
        batch.marks.push(Mark { version: 0, seed: Seed::random(), held: false, tries: None });
        batch.signals.push(Signal { id: String::new(), key, order_key, attempt: 0, values });
    }
    batch
}
