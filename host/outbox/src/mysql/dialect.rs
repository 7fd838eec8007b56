//! The SQL that MySQL and MariaDB both understand, and how their keys and values are written as text.
//!
//! Runs no statement. Next: `database`, which says what each part is for.

use super::MySqlDialect;
use crate::database::{Cell, Dialect};
use crate::ranges::ranges;
use crate::sql::{Arg, Placeholder, Sql};
use crate::table::{Kind, Table, TableColumn};
use signalbus_core::key::split_key;

impl Dialect for MySqlDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Question
    }

    fn quote(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn now(&self) -> &'static str {
        "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT IGNORE INTO signalbus_lane (signal_type, table_name) VALUES (", ")"]
    }

    fn finds_schema(&self) -> Option<&'static str> {
        Some("SELECT schema_name FROM information_schema.schemata WHERE schema_name = ?")
    }

    fn schema(&self) -> &'static str {
        include_str!("../schema/mysql.sql")
    }

    fn finds_index(&self) -> &'static str {
        "SELECT index_name FROM information_schema.statistics WHERE index_name = ?"
    }

    fn explain(&self) -> &'static str {
        "EXPLAIN SELECT "
    }

    /// (Whether it sorts, says little: that depends on how many rows there are at the moment.)
    fn collects(&self, plan: &[Vec<Cell>]) -> Option<String> {
        plan.iter().find_map(|row| {
            let text = |column: usize| row.get(column).cloned().flatten().unwrap_or_default();
            // What belongs to a subquery is done for each row.
            let derived = text(2).starts_with("<derived") && !text(1).contains("SUBQUERY");
            derived.then(|| "a derived table".to_owned())
        })
    }

    fn version(&self) -> Option<&'static str> {
        None
    }

    fn version_in(&self, column: &TableColumn, reference: &str) -> Option<String> {
        let fine = matches!(column.sql_type.as_str(), "datetime(6)" | "timestamp(6)");
        let told = fine && !column.nullable && !column.generated;
        told.then(|| format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {reference})"))
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let text = "SELECT CAST(SUM(CRC32(CONCAT_WS(' ', ordinal_position, column_name, column_type, column_key, is_nullable, extra))) AS CHAR) \
             FROM information_schema.columns WHERE table_name = ? AND table_schema = coalesce(?, database())";
        let schema = if let [schema, _] = name { Some(schema.as_str()) } else { None };
        (text, vec![name.last().map_or("", String::as_str).into(), schema.into()])
    }

    fn reads_only(&self) -> &'static str {
        "@@global.read_only = 1"
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let schema = if let [schema, _] = name { Some(schema.as_str()) } else { None };
        let table = name.last().map_or("", String::as_str);
        ("SELECT CONCAT(coalesce(?, database()), '.', ?)", vec![schema.into(), table.into()])
    }

    /// (Of a small table, every row is looked at otherwise.)
    fn delete_from(&self, table: &str) -> String {
        format!("DELETE t FROM {table} t FORCE INDEX (PRIMARY) WHERE ")
    }

    fn mark(&self, table: &str, set: &str) -> String {
        format!("UPDATE {table} t FORCE INDEX (PRIMARY) SET {set} WHERE ")
    }

    fn lock_rows(&self, _: bool) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }

    /// (MariaDB reads from the first row on.)
    fn seeks_in_subqueries(&self) -> bool {
        false
    }

    fn share(&self) -> &'static str {
        " LOCK IN SHARE MODE"
    }

    fn compares_rows(&self) -> bool {
        // Neither MySQL nor MariaDB uses an index for `(a, b) > (x, y)`.
        false
    }

    fn selected(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Date | Kind::Time | Kind::Datetime | Kind::Timestamp | Kind::Decimal | Kind::Uuid | Kind::Other => {
                format!("CAST({reference} AS CHAR)")
            }
            Kind::Bits => {
                let width = column.sql_type.trim_start_matches("bit(").trim_end_matches(')');
                format!("LPAD(BIN({reference} + 0), {width}, '0')")
            }
            Kind::Geometry => format!("ST_AsText({reference})"),
            _ => reference.to_owned(),
        }
    }

    /// An ENUM or a SET is compared as text, and sorted by the places of its members.
    fn compared(&self, column: &TableColumn, reference: &str) -> String {
        if column.sql_type.starts_with("enum(") || column.sql_type.starts_with("set(") {
            return format!("CAST({reference} AS CHAR) COLLATE utf8mb4_bin");
        }
        reference.to_owned()
    }

    /// Collations may hold `a` for `A`, and most of them `a` for `a` with a blank behind it.
    fn exactly(&self, text: &str) -> String {
        format!("CAST({text} AS BINARY)")
    }

    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes => format!("HEX({reference})"),
            Kind::Float => format!("CAST({reference} * 1e0 AS CHAR)"),
            Kind::Bits => format!("CAST({reference} + 0 AS CHAR)"),
            Kind::Text => format!("CONVERT({reference} USING utf8mb4)"),
            _ => format!("CAST({reference} AS CHAR)"),
        }
    }

    /// Numbers and times as text; arithmetic makes a float tell all of its digits.
    fn kept(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes | Kind::Geometry => reference.to_owned(),
            Kind::Float => format!("CAST({reference} * 1e0 AS CHAR)"),
            Kind::Bits => format!("CAST({reference} + 0 AS CHAR)"),
            Kind::Text | Kind::Json => format!("CONVERT({reference} USING utf8mb4)"),
            _ => format!("CAST({reference} AS CHAR)"),
        }
    }

    fn restored(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Bytes | Kind::Geometry => reference.to_owned(),
            Kind::Bits => format!("CAST(CONVERT({reference} USING utf8mb4) AS UNSIGNED)"),
            _ => format!("CONVERT({reference} USING utf8mb4)"),
        }
    }

    /// (As what is kept is bytes, bytes are compared.)
    fn differs(&self, one: &str, other: &str) -> String {
        format!("NOT ({one} <=> {other})")
    }

    /// A string is compared with a number as a float, so numbers are handed over as numbers.
    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        match column.kind {
            Kind::Int => sql.arg(part.parse().map_or(Arg::Null, Arg::Int)),
            Kind::Unsigned => sql.arg(part.parse().map_or(Arg::Null, Arg::Unsigned)),
            Kind::Float => sql.arg(part.parse().map_or(Arg::Null, Arg::Real)),
            Kind::Decimal => sql.push("CAST(").arg(part).push(&format!(" AS {})", column.sql_type)),
            Kind::Bits => sql.push("CAST(").arg(part).push(" AS UNSIGNED)"),
            Kind::Bytes => sql.push("UNHEX(").arg(part).push(")"),
            _ => sql.arg(part),
        };
    }

    /// A range is read as far as the row behind it, which somebody may have locked: that is its own last one.
    fn range(&self, sql: &mut Sql, column: &str, first: i64, last: i64) {
        sql.push(column).push(" BETWEEN ").arg(first).push(" AND ").arg(last.saturating_sub(1));
        sql.push(" OR ").push(column).push(" = ").arg(last);
    }

    /// `VALUES` lists and row constructors are not the same in MySQL and MariaDB: plain terms are.
    fn key_in(&self, sql: &mut Sql, table: &Table, keys: &[&str]) {
        let columns: Vec<&TableColumn> = table.key_columns().collect();
        if let [column] = columns[..] {
            let name = self.quote(&column.name);
            if let Some(ranges) = ranges(table, keys) {
                sql.push("(").list(" OR ", ranges, |sql, (first, last)| self.range(sql, &name, first, last));
                sql.push(")");
                return;
            }
            sql.push(&name).push(" IN (");
            sql.list(", ", keys, |sql, key| self.key_args(sql, table, key));
            sql.push(")");
            return;
        }
        sql.push("(").list(" OR ", keys, |sql, key| {
            sql.push("(").list(" AND ", columns.iter().zip(split_key(key)), |sql, (column, part)| {
                sql.push(&self.quote(&column.name)).push(" = ");
                self.key_arg(sql, column, &part);
            });
            sql.push(")");
        });
        sql.push(")");
    }

    fn concatenated(&self, parts: &[String]) -> String {
        format!("CONCAT_WS(',', {})", parts.join(", "))
    }
}
