//! Reading due rows: within a range of keys, leaving out what is claimed or deferred.
//!
//! Reads only, and locks no row. Next: `claim`, which records what was read.

use super::active::RecordedClaims;
use super::database::{ExtraColumns, Fetched, Purpose};
use super::hold::{DEAD, Hold, RETRY};
use super::place::Place;
use super::sql::Sql;
use super::table::TableColumn;
use super::{Error, SignalTable, Worker};
use signalbus_core::key::split_key;

/// Which rows to read.
#[derive(Default)]
pub(super) struct Window<'a> {
    pub(super) after: Option<&'a str>,
    pub(super) until: Option<&'a str>,
    /// Nothing before this value of the first column of the order.
    pub(super) floor: Option<&'a Place>,
    /// Only these order keys.
    pub(super) only: Option<&'a [String]>,
    pub(super) limit: usize,
}

impl Window<'_> {
    /// How many rows are looked through at most, if of the first ones nothing can be recorded.
    pub(super) fn widest(&self) -> usize {
        self.limit.saturating_mul(256)
    }
}

impl Worker<'_> {
    /// Reads due rows within a window, in the type's order, leaving out what others have claimed.
    pub(super) async fn read(&mut self, window: &Window<'_>, active: &RecordedClaims) -> Result<Fetched, Error> {
        let lane = self.lane;
        let extras = ExtraColumns {
            key: lane.table.integer_key().is_none(),
            order_key: !lane.table.order_key.is_empty(),
            hold: active.due.is_some() || active.dead || active.undeleted.is_some(),
            version: true,
        };
        let mut sql = lane.statement("SELECT ", &[]);
        sql.push(&lane.texts.columns);
        if extras.key {
            sql.push(", ").push(&lane.texts.key);
        }
        if extras.order_key {
            sql.push(", ").push(&lane.texts.order_key);
        }
        if extras.hold {
            let columns = lane.database.dialect().concatenated(&Hold::COLUMNS.map(str::to_owned));
            sql.push(", (SELECT ").push(&columns).push(" FROM signalbus_hold h WHERE h.signal_type = ");
            sql.arg(lane.signal_type.name.as_str());
            sql.push(" AND ").push(&lane.database.dialect().same_key("h.signal_key", &lane.texts.key)).push(")");
        }
        if extras.version {
            sql.push(", ").push(&lane.texts.version);
        }
        lane.due_within(&mut sql, window, active);
        let rows = self.session.signals(sql, lane.table.clone(), extras, lane.table.burst_bytes).await?;
        lane.row_bytes.learn(&rows);
        Ok(rows)
    }

    /// The last key of each of up to `batches` batches of what is due from a window on. All but a single one are full.
    pub(super) async fn part_ends(
        &mut self,
        window: &Window<'_>,
        batches: usize,
        active: &RecordedClaims,
    ) -> Result<Vec<String>, Error> {
        if batches > 1 {
            let ends = self.full_ends(window, batches, active).await?;
            if !ends.is_empty() {
                return Ok(ends);
            }
        }
        Ok(self.range_end(window, active).await?.into_iter().collect())
    }

    async fn full_ends(&mut self, window: &Window<'_>, batches: usize, active: &RecordedClaims) -> Result<Vec<String>, Error> {
        let lane = self.lane;
        let dialect = lane.database.dialect();
        let quoted = |column: &TableColumn| format!("t.{}", dialect.quote(&column.name));
        let columns = lane.table.key_columns().map(quoted).collect::<Vec<_>>().join(", ");
        let mut sql = lane.statement("SELECT ", &[]);
        sql.push(&lane.texts.key).push(" FROM (SELECT ").push(&columns);
        sql.push(", row_number() OVER (ORDER BY ")
            .push(&lane.compared_key().join(", "))
            .push(") AS signalbus_place FROM (SELECT ");
        sql.push(&columns);
        lane.due_within(&mut sql, &Window { limit: batches * window.limit, ..*window }, active);
        sql.push(&format!(") t) t WHERE signalbus_place % {} = 0 ORDER BY signalbus_place", window.limit));
        let rows = self.session.rows(sql).await?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
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

    /// Returns the highest key at present; `None` if the table is empty.
    ///
    /// # Errors
    /// The database's error.
    pub async fn boundary(&mut self) -> Result<Option<String>, Error> {
        self.first_key(&self.lane.descending(), &RecordedClaims::default()).await
    }

    /// Returns the key of the first row that is to be sent, in the type's order; `None` if there is none.
    ///
    /// # Errors
    /// The database's error.
    pub async fn head(&mut self) -> Result<Option<String>, Error> {
        self.first_key(&self.lane.texts.order, &RecordedClaims { dead: true, ..RecordedClaims::default() }).await
    }

    async fn first_key(&mut self, order: &str, active: &RecordedClaims) -> Result<Option<String>, Error> {
        let texts = &self.lane.texts;
        let mut sql = self.lane.statement(&format!("SELECT {} FROM {} t WHERE 1 = 1", texts.key, texts.from), &[]);
        self.lane.leave_out(&mut sql, active);
        sql.push(&format!(" ORDER BY {order} LIMIT 1"));
        self.session.begin(Purpose::Read).await?;
        let rows = self.session.rows(sql).await?;
        self.session.commit().await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
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

    /// The key's columns, as they are compared and sorted.
    fn compared_key(&self) -> Vec<String> {
        let dialect = self.database.dialect();
        let compared = |column: &TableColumn| dialect.compared(column, &format!("t.{}", dialect.quote(&column.name)));
        self.table.key_columns().map(compared).collect()
    }

    /// The key's columns, the highest first.
    fn descending(&self) -> String {
        let order: Vec<String> = self.compared_key().iter().map(|column| format!("{column} DESC")).collect();
        order.join(", ")
    }

    /// Appends the part of a query behind its columns: what is due within a window.
    fn due_within(&self, sql: &mut Sql, window: &Window<'_>, active: &RecordedClaims) {
        sql.push(" FROM ").push(&self.texts.from).push(" t WHERE 1 = 1");
        // SQLite lets a primary key hold NULL; such a row has no identity to delete it by.
        for column in self.table.key_columns().filter(|column| column.nullable) {
            sql.push(" AND t.").push(&self.database.dialect().quote(&column.name)).push(" IS NOT NULL");
        }
        self.within(sql, window.after, window.until, " AND ");
        if let (Some(floor), Some(first)) = (window.floor, self.table.order_by.first()) {
            let column = &self.table.columns[first.column];
            let operator = if first.descending { " <= " } else { " >= " };
            sql.push(" AND t.").push(&self.database.dialect().quote(&column.name)).push(operator);
            self.database.dialect().key_arg(sql, column, &floor.to_text());
        }
        if let Some(keys) = window.only {
            self.order_key_among(sql, keys, "IN");
        }
        self.leave_out(sql, active);
        sql.push(" ORDER BY ").push(&self.texts.order);
        sql.push(" LIMIT ").push(&window.limit.to_string());
    }

    /// Appends `key > after AND key <= until`, each where it is given, with `prefix` before each.
    fn within(&self, sql: &mut Sql, after: Option<&str>, until: Option<&str>, prefix: &str) {
        for (key, operator) in [(after, ">"), (until, "<=")] {
            if let Some(key) = key {
                sql.push(prefix);
                self.compare(sql, operator, key);
            }
        }
    }

    /// Appends a query whose first row tells that something behind a key can be claimed, unless
    /// another claim covers it.
    pub(super) fn due(&self, sql: &mut Sql, after: Option<&str>) {
        sql.push("SELECT 1");
        self.due_within(sql, &Window { after, limit: 1, ..Window::default() }, &RecordedClaims::held());
    }

    /// Appends a comparison of the whole key, in a form that the key's index serves.
    fn compare(&self, sql: &mut Sql, operator: &str, key: &str) {
        let dialect = self.database.dialect();
        let columns = self.compared_key();
        if columns.len() == 1 || dialect.compares_rows() {
            sql.push("(").push(&columns.join(", ")).push(") ").push(operator).push(" (");
            dialect.key_args(sql, &self.table, key);
            sql.push(")");
            return;
        }
        self.compare_stepwise(sql, operator, key, &columns);
    }

    /// `(a > x OR (a = x AND b > y))`, with `a >= x` in front for the index.
    fn compare_stepwise(&self, sql: &mut Sql, operator: &str, key: &str, columns: &[String]) {
        let dialect = self.database.dialect();
        let parts = split_key(key);
        let terms: Vec<_> = self.table.key_columns().zip(parts).zip(columns).collect();
        let strict = &operator[..1];
        let term = |sql: &mut Sql, n: usize, operator: &str| {
            let ((column, part), name) = &terms[n];
            sql.push(name).push(" ").push(operator).push(" ");
            dialect.key_arg(sql, column, part);
        };
        sql.push("(");
        term(sql, 0, if strict == ">" { ">=" } else { "<=" });
        sql.push(" AND (");
        for n in 0..columns.len() {
            let last = n + 1 == columns.len();
            sql.push(if n > 0 { " OR (" } else { "(" });
            for equal in 0..n {
                term(sql, equal, "=");
                sql.push(" AND ");
            }
            term(sql, n, if last { operator } else { strict });
            sql.push(")");
        }
        sql.push("))");
    }

    /// Appends what keeps away from other claims and from what is deferred.
    fn leave_out(&self, sql: &mut Sql, active: &RecordedClaims) {
        let same = |column: &str, other: &str| self.database.dialect().same_key(column, other);
        let others = &active.claims;
        if self.table.ordered() {
            let busy: Vec<String> = others.iter().flat_map(|claim| claim.order_keys.iter().cloned()).collect();
            self.order_key_among(sql, &busy, "NOT IN");
        } else {
            for claim in others {
                sql.push(" AND NOT (1 = 1");
                self.within(sql, claim.from.as_deref(), claim.to.as_deref(), " AND ");
                sql.push(")");
            }
        }
        if active.dead || active.undeleted.is_some() {
            self.without_hold(sql, "<>", RETRY);
            sql.push(" AND ").push(&same("h.signal_key", &self.texts.key)).push(")");
        }
        if active.dead && self.table.holds_dead {
            self.without_hold(sql, "=", DEAD);
            if !self.table.order_key.is_empty() {
                sql.push(" AND ").push(&same("h.order_key", &self.texts.order_key));
            }
            sql.push(")");
        }
        if active.due.is_some_and(|(_, last)| last > 0) {
            self.without_hold(sql, "=", RETRY);
            match (self.table.ordered(), self.table.order_key.is_empty()) {
                (false, _) => sql.push(" AND ").push(&same("h.signal_key", &self.texts.key)),
                (true, false) => sql.push(" AND ").push(&same("h.order_key", &self.texts.order_key)),
                (true, true) => sql,
            };
            sql.push(" AND h.due_at > ");
            match active.now {
                Some(now) => sql.arg(now),
                None => sql.push(self.database.dialect().now()),
            };
            sql.push(")");
        }
    }

    /// Appends the beginning of a condition that no hold matches that is in this state (`=`), or is not (`<>`).
    fn without_hold(&self, sql: &mut Sql, operator: &str, state: &str) {
        sql.push(" AND NOT EXISTS (SELECT 1 FROM signalbus_hold h WHERE h.signal_type = ");
        sql.arg(self.signal_type.name.as_str()).push(" AND h.state ").push(operator).push(" ").arg(state);
    }

    fn order_key_among(&self, sql: &mut Sql, keys: &[String], operator: &str) {
        if keys.is_empty() || self.table.order_key.is_empty() {
            return;
        }
        let order_key = self.database.dialect().exactly(&self.texts.order_key);
        sql.push(" AND ").push(&order_key).push(" ").push(operator).push(" (");
        sql.list(", ", keys, |sql, key| {
            sql.arg(key.as_str());
        });
        sql.push(")");
    }
}
