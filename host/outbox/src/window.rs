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
#[derive(Clone, Copy, Default)]
pub(super) struct Window<'a> {
    pub(super) after: Option<&'a str>,
    pub(super) until: Option<&'a str>,
    /// Only behind the key in the row of `signalbus_end` that the query is about.
    pub(super) behind_end: bool,
    /// Nothing before this value of the first column of the order.
    pub(super) floor: Option<&'a Place>,
    /// Only among so many rows from the floor on, and those that are level with the last of them.
    pub(super) among: Option<usize>,
    /// Only these order keys.
    pub(super) only: Option<&'a [String]>,
    /// Only these keys, which are held, and due.
    pub(super) keys: Option<&'a [String]>,
    pub(super) limit: usize,
    /// Few are held, compared with the rows: they are looked up in a set, which is made for the statement.
    pub(super) few_held: bool,
}

/// Which rows of a type without an order are left out, by their hold.
#[derive(Clone, Copy)]
enum Held {
    /// Whatever is held: what is due again is looked up by its key.
    Any,
    NotDue,
    /// Dead letters, and what was sent.
    Done,
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
            order_key: lane.reads_order_key(),
            // (Of an ordered type, what is held and not due is not read.)
            hold: if lane.table.ordered() { active.any_due() } else { active.holds() && window.keys.is_some() },
            version: !self.session.knows_state(),
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
            sql.push(", (SELECT ").push(&columns).push(" FROM signalbus_hold h WHERE ");
            let signal = lane.signal_type.name.as_str();
            lane.database.dialect().held_under(&mut sql, signal, "signal_key", &lane.texts.key);
            sql.push(")");
        }
        if extras.version {
            sql.push(", ").push(&lane.texts.version);
        }
        lane.due_within(&mut sql, window, active);
        let rows = self.session.signals(sql, lane.table.clone(), extras, lane.table.burst_bytes).await?;
        lane.row_bytes.learn(&rows);
        Ok(rows)
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
        self.lane.leave_out(&mut sql, active, Held::Done, false);
        sql.push(&format!(" ORDER BY {order} LIMIT 1"));
        self.session.begin(Purpose::Read).await?;
        let rows = self.session.rows(sql).await?;
        self.session.commit().await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }
}

impl SignalTable {
    /// Whether the order key is read in a column of its own.
    pub(super) fn reads_order_key(&self) -> bool {
        !self.table.order_key.is_empty() && !self.table.order_key_told
    }

    /// The key's columns, as they are compared and sorted.
    pub(super) fn compared_key(&self) -> Vec<String> {
        let dialect = self.database.dialect();
        let compared = |column: &TableColumn| dialect.compared(column, &format!("t.{}", dialect.quote(&column.name)));
        self.table.key_columns().map(compared).collect()
    }

    /// The key's columns, the highest first.
    pub(super) fn descending(&self) -> String {
        let order: Vec<String> = self.compared_key().iter().map(|column| format!("{column} DESC")).collect();
        order.join(", ")
    }

    /// Appends the part of a query behind its columns: what is due within a window.
    pub(super) fn due_within(&self, sql: &mut Sql, window: &Window<'_>, active: &RecordedClaims) {
        sql.push(" FROM ").push(&self.texts.from).push(" t WHERE 1 = 1");
        // SQLite lets a primary key hold NULL; such a row has no identity to delete it by.
        for column in self.table.key_columns().filter(|column| column.nullable) {
            sql.push(" AND t.").push(&self.database.dialect().quote(&column.name)).push(" IS NOT NULL");
        }
        self.within(sql, window.after, window.until, " AND ");
        if let Some(column) = self.table.key_columns().next().filter(|_| window.behind_end) {
            let end = self.database.dialect().compared(column, "signalbus_end.last");
            sql.push(" AND ").push(&self.compared_key().join(", ")).push(" > ").push(&end);
        }
        if let (Some(floor), Some(first)) = (window.floor, self.table.order_by.first()) {
            let column = &self.table.columns[first.column];
            let name = self.database.dialect().quote(&column.name);
            let (from, to, direction) = if first.descending { (" <= ", " >= ", " DESC") } else { (" >= ", " <= ", "") };
            sql.push(" AND t.").push(&name).push(from);
            self.database.dialect().key_arg(sql, column, &floor.to_text());
            if let Some(rows) = window.among {
                sql.push(&format!(" AND t.{name}{to}(SELECT n.{name} FROM {} n WHERE n.{name}{from}", self.texts.from));
                self.database.dialect().key_arg(sql, column, &floor.to_text());
                sql.push(&format!(" ORDER BY n.{name}{direction} LIMIT 1 OFFSET {rows})"));
            }
        }
        if let Some(keys) = window.only {
            self.order_key_among(sql, keys, "IN");
        }
        if let Some(keys) = window.keys {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            sql.push(" AND ");
            self.database.dialect().key_in(sql, &self.table, &keys);
        }
        let held = if window.keys.is_some() { Held::NotDue } else { Held::Any };
        self.leave_out(sql, active, held, window.few_held);
        sql.push(" ORDER BY ").push(&self.texts.order);
        sql.push(" LIMIT ").push(&window.limit.to_string());
    }

    /// Appends `key > after AND key <= until`, each where it is given, with `prefix` before each.
    pub(super) fn within(&self, sql: &mut Sql, after: Option<&str>, until: Option<&str>, prefix: &str) {
        for (key, operator) in [(after, ">"), (until, "<=")] {
            if let Some(key) = key {
                sql.push(prefix);
                self.compare(sql, operator, key);
            }
        }
    }

    /// Appends a condition that something behind a key can be claimed, or is due again, unless another claim covers it.
    pub(super) fn due(&self, sql: &mut Sql, after: Option<&str>) {
        sql.push("EXISTS (SELECT 1");
        self.due_within(sql, &Window { after, limit: 1, ..Window::default() }, &RecordedClaims::held());
        sql.push(")");
        if !self.table.ordered() {
            sql.push(" OR (SELECT due_at FROM signalbus_hold WHERE signal_type = ").arg(self.signal_type.name.as_str());
            sql.push(" AND state = ").arg(RETRY).push(" ORDER BY due_at LIMIT 1) <= ").push(self.database.dialect().now());
        }
    }

    /// A query for the last of so many keys behind another one, if there are so many.
    pub(super) fn distant_key(&self, after: Option<&str>, until: Option<&str>, distance: usize) -> Sql {
        let mut sql = self.statement(&format!("SELECT {} FROM {} t WHERE 1 = 1", self.texts.key, self.texts.from), &[]);
        self.within(&mut sql, after, until, " AND ");
        sql.push(&format!(" ORDER BY {} LIMIT 1 OFFSET {}", self.compared_key().join(", "), distance - 1));
        sql
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

    /// Appends what keeps away from other claims and from what is held.
    fn leave_out(&self, sql: &mut Sql, active: &RecordedClaims, held: Held, few: bool) {
        if self.table.ordered() {
            return self.leave_order_out(sql, active, few);
        }
        // (A range leaves out what is held.)
        let by_key = matches!(held, Held::NotDue);
        for claim in active.claims.iter().filter(|claim| claim.order_keys.is_empty() && !by_key) {
            sql.push(" AND NOT (1 = 1");
            self.within(sql, claim.from.as_deref(), claim.to.as_deref(), " AND ");
            sql.push(")");
        }
        if !active.holds() {
            return;
        }
        self.without_hold(sql, Some(("signal_key", &self.texts.key)), false, |sql| match held {
            Held::Any => {}
            Held::Done => {
                sql.push(" AND h.state <> ").arg(RETRY);
            }
            Held::NotDue => {
                sql.push(" AND (h.state <> ").arg(RETRY).push(" OR h.due_at > ");
                self.push_now(sql, active);
                sql.push(")");
            }
        });
    }

    fn leave_order_out(&self, sql: &mut Sql, active: &RecordedClaims, few: bool) {
        let busy: Vec<String> = active.claims.iter().flat_map(|claim| claim.order_keys.iter().cloned()).collect();
        self.order_key_among(sql, &busy, "NOT IN");
        if active.dead || active.undeleted.is_some() {
            self.without_hold(sql, Some(("signal_key", &self.texts.key)), few, |sql| {
                sql.push(" AND h.state <> ").arg(RETRY);
            });
        }
        // (Of all that are held, few have this order key, and many this state.)
        let state = if few { "h.state".to_owned() } else { self.database.dialect().unindexed("h.state") };
        let in_state = format!(" AND {state} = ");
        let order_key = (!self.table.order_key.is_empty()).then_some(("order_key", &self.texts.order_key[..]));
        if active.dead && self.table.holds_dead {
            self.without_hold(sql, order_key, few, |sql| {
                sql.push(&in_state).arg(DEAD);
            });
        }
        if active.next_due.is_some() {
            self.without_hold(sql, order_key, few, |sql| {
                sql.push(&in_state).arg(RETRY).push(" AND h.due_at > ");
                self.push_now(sql, active);
            });
        }
    }

    fn push_now(&self, sql: &mut Sql, active: &RecordedClaims) {
        match active.now {
            Some(now) => sql.arg(now),
            None => sql.push(self.database.dialect().now()),
        };
    }

    /// Appends a condition that no hold of the type matches, with this key in a column if it is given.
    fn without_hold(&self, sql: &mut Sql, key: Option<(&str, &str)>, few: bool, matching: impl Fn(&mut Sql)) {
        let (signal, dialect) = (self.signal_type.name.as_str(), self.database.dialect());
        match key {
            Some((column, key)) if few => {
                sql.push(" AND (").push(&dialect.exactly(key)).push(" NOT IN ");
                dialect.set(sql, &|sql| {
                    sql.push("SELECT ")
                        .push(&dialect.exactly(&format!("h.{column}")))
                        .push(" FROM signalbus_hold h WHERE h.signal_type = ")
                        .arg(signal);
                    matching(sql);
                });
                sql.push(") IS TRUE");
                return;
            }
            Some((column, key)) => {
                sql.push(" AND NOT EXISTS (SELECT 1 FROM signalbus_hold h WHERE ");
                dialect.held_under(sql, signal, column, key);
            }
            None => {
                sql.push(" AND NOT EXISTS (SELECT 1 FROM signalbus_hold h WHERE h.signal_type = ").arg(signal);
            }
        }
        matching(sql);
        sql.push(dialect.per_row()).push(")");
    }

    fn order_key_among(&self, sql: &mut Sql, keys: &[String], operator: &str) {
        if keys.is_empty() || self.table.order_key.is_empty() {
            return;
        }
        let order_key = self.database.dialect().exactly(&self.texts.order_key);
        // (Hashed, whatever is planned: as a join, each row would be compared with each key.)
        sql.push(" AND (").push(&order_key).push(" ").push(operator).push(" ");
        self.database.dialect().texts(sql, keys);
        sql.push(") IS TRUE");
    }
}
