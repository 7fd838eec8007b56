//! Where the batches of a claim end: only their last keys are read, and whether a range has rows that are held.
//!
//! Reads only. Next: `unordered`, which claims such a range.

use super::active::RecordedClaims;
use super::database::number;
use super::sql::Sql;
use super::table::TableColumn;
use super::window::Window;
use super::{Error, SignalTable, Worker};

impl Worker<'_> {
    /// The last key of each of up to `batches` batches of what is due from a window on, and how many rows these are, if
    /// that is known. All but a single one are full.
    pub(super) async fn part_ends(
        &mut self,
        window: &Window<'_>,
        batches: usize,
        active: &RecordedClaims,
    ) -> Result<(Vec<String>, Option<usize>), Error> {
        if batches > 1 {
            let dialect = self.lane.database.dialect();
            let ends = match self.lane.table.key.len() {
                1 if dialect.seeks_in_subqueries() => self.full_ends(window, batches, active).await?,
                _ if dialect.is_embedded() => self.walked_ends(window, batches, active).await?,
                _ => self.numbered_ends(window, batches, active).await?,
            };
            if let Some((place, _)) = ends.last() {
                let rows = *place;
                return Ok((ends.into_iter().filter_map(|(_, key)| key).collect(), Some(rows)));
            }
        }
        Ok((self.range_end(window, active).await?.into_iter().collect(), None))
    }

    /// Whether it is certain that no row of a range is held, by a look at the index of the holds: numbers without a sign
    /// that have as many digits are sorted as texts are.
    pub(super) async fn holds_nothing(&mut self, after: Option<&str>, until: &str) -> Result<bool, Error> {
        let numbers = self.lane.table.number_key();
        let sorted = |after: &&str| numbers && after.len() == until.len() && !after.starts_with('-') && !until.starts_with('-');
        let Some(after) = after.filter(sorted) else { return Ok(false) };
        let key = self.lane.database.dialect().sorted_key();
        let digits = until.len();
        let text = format!(
            "SELECT 1 FROM signalbus_hold WHERE signal_type = ? AND {key} > ? AND {key} <= ? AND length(signal_key) = {digits} LIMIT 1"
        );
        let args = [self.lane.signal_type.name.as_str().into(), after.into(), until.into()];
        Ok(self.session.rows(self.lane.statement(&text, &args)).await?.is_empty())
    }

    /// Whether a range has so many rows, so that none of them is held.
    pub(super) async fn has_rows(&mut self, after: Option<&str>, until: &str, rows: usize) -> Result<bool, Error> {
        let mut sql = self.lane.statement(&format!("SELECT count(*) FROM {} t WHERE 1 = 1", self.lane.texts.from), &[]);
        self.lane.within(&mut sql, after, Some(until), " AND ");
        let found = self.session.rows(sql).await?;
        Ok(found.first().is_some_and(|row| number::<usize>(&row[0]) == rows))
    }

    /// The place and the key of the last row of each full batch: from one to the next by the index, since to number all rows
    /// takes three times as long. (For a key of one column.)
    async fn full_ends(
        &mut self,
        window: &Window<'_>,
        batches: usize,
        active: &RecordedClaims,
    ) -> Result<Vec<(usize, Option<String>)>, Error> {
        let lane = self.lane;
        let dialect = lane.database.dialect();
        let column = lane.table.key_columns().next().map(|column| dialect.quote(&column.name)).unwrap_or_default();
        let limit = window.limit;
        let last_of_batch = |sql: &mut Sql, window: &Window<'_>| {
            sql.push("(SELECT t.").push(&column);
            lane.due_within(sql, &Window { limit: 1, ..*window }, active);
            sql.push(&format!(" OFFSET {})", limit - 1));
        };
        let mut sql = lane.statement(&format!("WITH RECURSIVE signalbus_end (place, last) AS (SELECT {limit}, "), &[]);
        last_of_batch(&mut sql, window);
        sql.push(&format!(" UNION ALL SELECT place + {limit}, "));
        last_of_batch(&mut sql, &Window { after: None, behind_end: true, ..*window });
        sql.push(&format!(" FROM signalbus_end WHERE place < {} AND last IS NOT NULL) SELECT ", batches * limit));
        sql.push(&lane.texts.key).push(", place FROM (SELECT place, last AS ").push(&column);
        sql.push(" FROM signalbus_end WHERE last IS NOT NULL) t ORDER BY place");
        let rows = self.session.rows(sql).await?;
        Ok(rows.into_iter().map(|row| (number(&row[1]), row[0].clone())).collect())
    }

    /// The same where a query within another cannot begin at a key of that: all rows are numbered.
    async fn numbered_ends(
        &mut self,
        window: &Window<'_>,
        batches: usize,
        active: &RecordedClaims,
    ) -> Result<Vec<(usize, Option<String>)>, Error> {
        let lane = self.lane;
        let dialect = lane.database.dialect();
        let quoted = |column: &TableColumn| format!("t.{}", dialect.quote(&column.name));
        let columns = lane.table.key_columns().map(quoted).collect::<Vec<_>>().join(", ");
        let mut sql = lane.statement("SELECT ", &[]);
        sql.push(&lane.texts.key).push(", signalbus_place FROM (SELECT ").push(&columns);
        sql.push(", row_number() OVER (ORDER BY ")
            .push(&lane.compared_key().join(", "))
            .push(") AS signalbus_place FROM (SELECT ");
        sql.push(&columns);
        lane.due_within(&mut sql, &Window { limit: batches * window.limit, ..*window }, active);
        sql.push(&format!(") t) t WHERE signalbus_place % {} = 0 ORDER BY signalbus_place", window.limit));
        let rows = self.session.rows(sql).await?;
        Ok(rows.into_iter().map(|row| (number(&row[1]), row[0].clone())).collect())
    }

    /// The same, one by one: within the process even this takes a thirtieth of the time, since no row is sorted.
    async fn walked_ends(
        &mut self,
        window: &Window<'_>,
        batches: usize,
        active: &RecordedClaims,
    ) -> Result<Vec<(usize, Option<String>)>, Error> {
        let mut ends: Vec<(usize, Option<String>)> = Vec::new();
        for n in 1..=batches {
            let after = ends.last().map_or(window.after, |(_, key)| key.as_deref());
            let mut sql = self.lane.statement(&format!("SELECT {}", self.lane.texts.key), &[]);
            self.lane.due_within(&mut sql, &Window { after, limit: 1, ..*window }, active);
            sql.push(&format!(" OFFSET {}", window.limit - 1));
            // (Of some keys nothing can be recorded.)
            match self.session.rows(sql).await?.into_iter().flatten().flatten().next() {
                Some(key) => ends.push((n * window.limit, Some(key))),
                None => break,
            }
        }
        Ok(ends)
    }

    /// The last key of what is due within a window. (Of some keys nothing can be recorded: if there are no others, the
    /// window grows.)
    async fn range_end(&mut self, window: &Window<'_>, active: &RecordedClaims) -> Result<Option<String>, Error> {
        let (mut limit, mut wanted) = (window.limit, 1);
        loop {
            let rows = self.session.rows(self.lane.last_keys(&Window { limit, ..*window }, active, wanted)).await?;
            let found = rows.len();
            let key = rows.into_iter().flatten().flatten().next();
            if key.is_some() || found == 0 || wanted > 1 && found < limit || limit >= window.widest() {
                return Ok(key);
            }
            (limit, wanted) = if wanted == 1 { (limit, limit) } else { (limit * 16, limit * 16) };
            wanted = wanted.max(2);
        }
    }
}

impl SignalTable {
    /// A query for the last keys within a window, the last one first.
    fn last_keys(&self, window: &Window<'_>, active: &RecordedClaims, count: usize) -> Sql {
        let dialect = self.database.dialect();
        let quoted = |column: &TableColumn| format!("t.{}", dialect.quote(&column.name));
        let columns: Vec<String> = self.table.key_columns().map(quoted).collect();
        let mut sql = self.statement("SELECT ", &[]);
        sql.push(&self.texts.key).push(" FROM (SELECT ").push(&columns.join(", "));
        self.due_within(&mut sql, window, active);
        sql.push(") t ORDER BY ").push(&self.descending()).push(" LIMIT ").push(&count.to_string());
        sql
    }
}
