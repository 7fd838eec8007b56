//! The port to a database: a dialect to write statements in, and sessions to run them.
//!
//! Names no driver. The shared algorithm uses this port alone, and must never ask which database it is.
//! Next: `connection`, the sessions; `sqlite`, `postgres` and `mysql`, the adapters.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::error::Error;
use super::hold::Hold;
use super::ranges::ranges;
use super::sql::{Arg, Placeholder, Sql};
use super::table::{Description, Kind, Table, TableColumn};
use signalbus_core::key::split_key;
use signalbus_core::signal::Value;

/// What a transaction is for: it decides how durable its commit must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Extends a claim: its commit need not reach the disk.
    Renew,
    /// Records a claim: its commit is durable. What is sent must have its id on record.
    Write,
    /// Settles, durably; it does not wait for rows that others have locked.
    Settle,
    /// Settles in a single statement.
    Single,
    /// Changes nothing.
    Read,
    /// Asks whether others have committed: a connection that writes does not count its own commits.
    Watch,
}

/// One cell of a row that the relay reads from its own tables.
pub(crate) type Cell = Option<String>;

/// The version of a row that the transaction itself has written, where versions are numbered.
pub(crate) const OWN_VERSION: i64 = -1;

/// What a result set holds beside the user's columns, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtraColumns {
    pub(crate) key: bool,
    pub(crate) order_key: bool,
    /// What a hold says of the row.
    pub(crate) hold: bool,
    /// The row's version, see [`Dialect::version`].
    pub(crate) version: bool,
}

/// The key of a row that was read, and its version.
pub(crate) type ReadRow<'a> = (&'a str, i64);

/// A row of a user's table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) order_key: String,
    /// There is one under its key; it may belong to another version.
    pub(crate) hold: Option<Hold>,
    /// Two versions of a row have different numbers where [`Dialect::guard`] can tell them apart. Where they are
    /// compared, rows with the same number were read in the same state of the database.
    pub(crate) version: i64,
    /// NULL where a value cannot be decoded.
    pub(crate) values: Vec<Value>,
    /// Why a value cannot be decoded.
    pub(crate) broken: Option<String>,
}

/// Rows of a user's table that are not decoded yet: that can wait until the transaction is over.
pub(crate) struct Fetched {
    pub(crate) len: usize,
    /// The size of what was fetched.
    pub(crate) bytes: usize,
    /// Rows may have been left behind: those that were fetched are as large as they may be.
    pub(crate) cut: bool,
    /// `None` if nothing can be recorded of a row, since its key cannot be decoded.
    pub(crate) decode: Box<dyn Fn(usize) -> Option<Row> + Send + Sync>,
}

impl Fetched {
    /// Whether there may be more than these, of which `limit` were wanted.
    pub(crate) fn is_full(&self, limit: usize) -> bool {
        self.cut || self.len >= limit
    }

    /// Those with these very keys: a collation may call others equal.
    pub(crate) fn only(self, keys: HashSet<String>) -> Self {
        let decode = self.decode;
        Self { decode: Box::new(move |n| decode(n).filter(|row| keys.contains(&row.key))), ..self }
    }

    pub(crate) fn last(&self) -> Option<Row> {
        (0..self.len).rev().find_map(&self.decode)
    }

    pub(crate) fn all(&self) -> Vec<Row> {
        (0..self.len).filter_map(&self.decode).collect()
    }
}

/// A database that holds an outbox.
pub(crate) trait Database: Send + Sync {
    fn dialect(&self) -> &dyn Dialect;
    /// A connection of one's own, opened when it is first used. Sessions of a signal type have its share of all
    /// connections; those of none are a type of their own.
    fn session(&self, signal_type: Option<&str>) -> Box<dyn Session>;
    /// The table of that name, or `None` where there is none.
    fn describe<'a>(&'a self, name: &'a [String]) -> BoxFuture<'a, Result<Option<Description>, Error>>;
    /// Every statement looks for the side tables in a schema; `schema` is ready for SQL, with a dot.
    fn keep_sides_in(&self, schema: String);
    /// How many connections are in use, of how many.
    fn usage(&self) -> (usize, usize);
    /// Something that tells of commits as they happen, where there is something and it was set up.
    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Statements that make tables, each with its signal type, announce what is inserted.
    fn announcing(&self, _: &[(Vec<String>, &str)]) -> Option<Vec<String>> {
        None
    }
}

/// Notifies of commits as they happen.
pub trait Watch: Send {
    /// Waits for a commit, and returns the name of the signal type if it is known.
    ///
    /// # Errors
    /// The connection was lost; the watch has ended.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>>;
}

/// A connection. A session that is dropped inside a transaction closes its connection.
pub(crate) trait Session: Send {
    fn begin(&mut self, purpose: Purpose) -> BoxFuture<'_, Result<(), Error>>;
    fn execute(&mut self, sql: Sql) -> BoxFuture<'_, Result<u64, Error>>;
    /// The transaction's last statement.
    fn execute_and_commit(&mut self, sql: Sql) -> BoxFuture<'_, Result<u64, Error>>;
    fn rows(&mut self, sql: Sql) -> BoxFuture<'_, Result<Vec<Vec<Cell>>, Error>>;
    /// Rows of a user's table: its columns as `Dialect::selected` writes them, then the extras. Stops before the row
    /// that makes them exceed `bytes`, but never before the first one.
    fn signals(
        &mut self,
        sql: Sql,
        table: Arc<Table>,
        extras: ExtraColumns,
        bytes: Option<usize>,
    ) -> BoxFuture<'_, Result<Fetched, Error>>;
    /// The number of the connection that the transaction is on; no other connection of the process has it.
    fn connection(&self) -> u32;
    /// Whether the state of the database is known before anything is read: then rows need not tell it as their version.
    fn knows_state(&self) -> bool;
    /// The state of the database as the last statement that changed something found it, where the connection
    /// can tell: it is the same as long as nobody else commits.
    fn state(&self) -> Option<i64>;
    /// Gives up this connection, and those that rest: new ones may lead to another server.
    fn abandon(&mut self);
    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>>;
    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>>;
}

/// The few things that the three databases write differently.
pub(crate) trait Dialect: Send + Sync {
    fn placeholder(&self) -> Placeholder;

    /// Whether the database runs within the process: a statement costs no round trip.
    fn is_embedded(&self) -> bool {
        false
    }
    fn quote(&self, name: &str) -> String;
    /// The database's clock: an integer, milliseconds since 1970. It stands still within a statement, so that an index
    /// can be searched with it.
    fn now(&self) -> &'static str;
    /// Locks the selected rows until the transaction ends.
    fn for_update(&self) -> &'static str;
    /// Makes a signal type's lane unless it is there; its arguments are the names of the type and of its table.
    fn ensure_lane(&self) -> [&'static str; 2];
    /// A query that finds a schema by its name, where the side tables can be in one of their own.
    fn finds_schema(&self) -> Option<&'static str> {
        None
    }
    /// The side tables, statement by statement.
    fn schema(&self) -> &'static str;
    /// A query that finds an index of the side tables by its name. (Where indexes are made with their tables, none is
    /// looked for.)
    fn finds_index(&self) -> &'static str;
    /// The beginning of a query, up to its columns, that gets its plan instead.
    fn explain(&self) -> &'static str;
    /// Until the transaction ends, plans sort only what has to be sorted.
    fn plans_without_sorting(&self) -> Option<&'static str> {
        None
    }
    /// The step of a plan that has to see all rows before it returns the first.
    fn collects(&self, plan: &[Vec<Cell>]) -> Option<String>;
    /// A number that is selected with every row as its version.
    fn version(&self) -> Option<&'static str>;
    /// Whether versions tell two rows apart, even if they have the same content.
    fn numbers_versions(&self) -> bool {
        false
    }
    /// Appends a condition that holds only for the rows as they were read, by one statement, with these versions:
    /// whatever replaced one of them has none of these. Returns `false` if it cannot be told on this connection,
    /// so that the rows have to be compared.
    fn guard(&self, _: &mut Sql, _: &Table, _: &[ReadRow<'_>], _connection: u32) -> bool {
        false
    }
    /// A column of the user's as a number that tells a row's versions apart; `None` if it cannot.
    fn version_in(&self, _: &TableColumn, _reference: &str) -> Option<String> {
        None
    }
    /// The version of a row that is read again within a transaction: [`OWN_VERSION`] if that has written it.
    fn version_now(&self) -> Option<&'static str> {
        self.version()
    }
    /// What follows a SELECT of rows that are to be deleted, so that those that others have locked are left out, and
    /// the rest is locked. Without the right to lock rows nothing does that.
    fn lock_rows(&self, _may_lock: bool) -> &'static str {
        ""
    }
    /// A condition that keeps the rest of a statement from waiting for locked rows.
    fn impatient(&self) -> &'static str {
        ""
    }
    /// The beginning of a deletion by the primary key, up to its condition. It must look at the named rows only: any
    /// other may be locked.
    fn delete_from(&self, table: &str) -> String {
        format!("DELETE FROM {table} WHERE ")
    }
    /// The same, for what is set in the row instead.
    fn mark(&self, table: &str, set: &str) -> String {
        format!("UPDATE {table} SET {set} WHERE ")
    }
    /// A condition that the server only lets read, as one that another has taken over from.
    fn reads_only(&self) -> &'static str;
    /// Whether a user may lack the right to do something.
    fn has_rights(&self) -> bool {
        true
    }
    /// What follows a SELECT of the claim in a settle, so that nobody takes it over meanwhile; others may settle.
    fn share(&self) -> &'static str;
    /// Whether texts are compared byte by byte, unless a column says otherwise.
    fn compares_bytes(&self) -> bool {
        false
    }
    /// Whether `(a, b) > (x, y)` uses an index.
    fn compares_rows(&self) -> bool;

    /// Appends a condition that a hold of a signal type is under one of these keys.
    fn held_keys(&self, sql: &mut Sql, signal: &str, keys: &mut dyn Iterator<Item = &str>) {
        sql.push("signal_type = ").arg(signal).push(" AND signal_key IN (").list(", ", keys, |sql, key| {
            sql.arg(key);
        });
        sql.push(")");
    }
    /// Whether a query within another begins, by the index, at a key that the other has found.
    fn seeks_in_subqueries(&self) -> bool {
        true
    }
    /// A hold's key, if it is short, as an index sorts it byte by byte.
    fn sorted_key(&self) -> &'static str {
        "signal_key"
    }
    /// Appends a condition that a hold `h` of a signal type has this key in a column, as the column's index serves it:
    /// keys may be long.
    fn held_under(&self, sql: &mut Sql, signal: &str, column: &str, key: &str) {
        sql.push("h.signal_type = ").arg(signal).push(" AND h.").push(column).push(" = ").push(key);
    }
    /// A column in a condition that no index is to serve, since another one is better.
    fn unindexed(&self, column: &str) -> String {
        column.to_owned()
    }
    /// What ends a subquery, so that it is looked up by an index for each row, whatever the statistics say.
    fn per_row(&self) -> &'static str {
        ""
    }
    /// A query for the name of a table with its schema, as it is known to everybody, and its arguments.
    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>);
    /// A query for one cell, which changes whenever the table is altered, and its arguments.
    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>);
    /// A column, written so that the session can decode it exactly.
    fn selected(&self, column: &TableColumn, reference: &str) -> String;
    /// A key column as it is compared and sorted: both must come to the same order.
    fn compared(&self, _: &TableColumn, reference: &str) -> String {
        reference.to_owned()
    }
    /// A text, compared as it is: not by the rules of a language.
    fn exactly(&self, text: &str) -> String {
        text.to_owned()
    }
    /// Appends `(…)` for `IN`: these texts.
    fn texts(&self, sql: &mut Sql, texts: &[String]) {
        sql.push("(");
        sql.list(", ", texts, |sql, text| {
            sql.arg(text.as_str());
        });
        sql.push(")");
    }
    /// In the time of one lookup in a side table, so many of its rows are put into a set; zero if it cannot be told to make
    /// one.
    fn set_rows_per_lookup(&self) -> usize {
        0
    }
    /// Appends `(…)` for `NOT IN`: what a query finds, as a set that is made once.
    fn set(&self, sql: &mut Sql, query: &dyn Fn(&mut Sql)) {
        sql.push("(");
        query(sql);
        sql.push(")");
    }
    /// A key column's value as text that `key_arg` takes back.
    fn key_text(&self, column: &TableColumn, reference: &str) -> String;
    /// Whether the text of such a column as part of a key follows from its value: a number, or the text itself.
    fn tells_key(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Int | Kind::Text)
    }
    /// Appends one part of a key, to be compared with its column.
    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str);
    /// A column's value as version 1 kept it in `signalbus_dead_value`.
    fn kept(&self, _: &TableColumn, reference: &str) -> String {
        reference.to_owned()
    }
    /// The inverse of `kept`.
    fn restored(&self, _: &TableColumn, reference: &str) -> String {
        reference.to_owned()
    }
    /// A condition that two such values are not the same, to the byte.
    fn differs(&self, one: &str, other: &str) -> String {
        format!("{one} IS DISTINCT FROM {other}")
    }
    /// What makes an INSERT accept values for columns that the database fills itself.
    fn overriding(&self) -> &'static str {
        ""
    }

    /// Appends `key IN (…)`.
    fn key_in(&self, sql: &mut Sql, table: &Table, keys: &[&str]) {
        let columns: Vec<String> = table.key_columns().map(|column| self.quote(&column.name)).collect();
        if let [column] = &columns[..] {
            if let Some(ranges) = ranges(table, keys) {
                sql.push("(").list(" OR ", ranges, |sql, (first, last)| {
                    self.range(sql, column, first, last);
                });
                sql.push(")");
                return;
            }
            sql.push(column).push(" IN (").list(", ", keys, |sql, key| self.key_args(sql, table, key));
            sql.push(")");
            return;
        }
        sql.push("(").push(&columns.join(", ")).push(") IN (VALUES ");
        sql.list(", ", keys, |sql, key| {
            sql.push("(");
            self.key_args(sql, table, key);
            sql.push(")");
        });
        sql.push(")");
    }

    /// Appends a condition that a key is within a range, of which the table has all.
    fn range(&self, sql: &mut Sql, column: &str, first: i64, last: i64) {
        sql.push(column).push(" BETWEEN ").arg(first).push(" AND ").arg(last);
    }

    /// Appends the parts of a key, with commas between them.
    fn key_args(&self, sql: &mut Sql, table: &Table, key: &str) {
        sql.list(", ", table.key_columns().zip(split_key(key)), |sql, (column, part)| {
            self.key_arg(sql, column, &part);
        });
    }

    /// A table's name, ready for SQL.
    fn table_name(&self, parts: &[String]) -> String {
        let quoted: Vec<String> = parts.iter().map(|part| self.quote(part)).collect();
        quoted.join(".")
    }

    /// The text of several columns, joined and encoded as keys are.
    fn joined_text(&self, table: &Table, columns: &[usize]) -> String {
        let parts: Vec<String> = columns
            .iter()
            .map(|&n| {
                let column = &table.columns[n];
                let mut text = self.key_text(column, &format!("t.{}", self.quote(&column.name)));
                if column.nullable {
                    text = format!("coalesce({text}, '')");
                }
                if column.kind == Kind::Int { text } else { self.encoded(text) }
            })
            .collect();
        self.concatenated(&parts)
    }

    /// A key's text without what divides its parts.
    fn encoded(&self, text: String) -> String {
        percent_encoded(&text)
    }

    /// SQL for strings joined with `,`.
    fn concatenated(&self, parts: &[String]) -> String {
        parts.join(" || ',' || ")
    }
}

/// SQL for a text in which `,`, `:` and `%` are percent-encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    format!("replace(replace(replace({text}, '%', '%25'), ',', '%2C'), ':', '%3A')")
}

/// A statement in the database's own way of writing places: `?` in a text with arguments. One
/// without arguments may hold users' names, and so question marks of their own.
pub(crate) fn statement(dialect: &dyn Dialect, text: &str, args: &[Arg]) -> Sql {
    if args.is_empty() {
        return Sql::new(dialect.placeholder(), text);
    }
    let mut sql = Sql::new(dialect.placeholder(), "");
    let mut pieces = text.split('?');
    sql.push(pieces.next().unwrap_or_default());
    for (piece, arg) in pieces.zip(args) {
        sql.arg(arg.clone()).push(piece);
    }
    sql
}

/// Reads a number that the relay itself wrote.
pub(crate) fn number<T: std::str::FromStr + Default>(cell: &Cell) -> T {
    cell.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}
