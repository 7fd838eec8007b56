//! The SQL that only SQLite understands, and how its keys are written as text.
//!
//! Runs no statement. Next: `database`, which says what each part is for.

use std::collections::HashSet;

use super::{STATE, SqliteDialect};
use crate::database::{Cell, Dialect, ReadRow, percent_encoded};
use crate::sql::{Arg, Placeholder, Sql};
use crate::table::{Kind, Table, TableColumn};

impl Dialect for SqliteDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Question
    }

    fn is_embedded(&self) -> bool {
        true
    }

    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn now(&self) -> &'static str {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    }

    fn for_update(&self) -> &'static str {
        // BEGIN IMMEDIATE has locked everything already.
        ""
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT OR IGNORE INTO signalbus_lane (signal_type, table_name) VALUES (", ")"]
    }

    fn schema(&self) -> &'static str {
        include_str!("../schema/sqlite.sql")
    }

    /// One argument, however many they are. (JSON cannot tell U+0000 from the end.)
    fn texts(&self, sql: &mut Sql, texts: &[String]) {
        if texts.iter().any(|text| text.contains('\0')) {
            sql.push("(").list(", ", texts, |sql, text| {
                sql.arg(text.as_str());
            });
            sql.push(")");
            return;
        }
        sql.push("(SELECT value FROM json_each(").arg(serde_json::json!(texts).to_string().as_str()).push("))");
    }

    fn unindexed(&self, column: &str) -> String {
        format!("+{column}")
    }

    fn finds_index(&self) -> &'static str {
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND name = ?"
    }

    fn explain(&self) -> &'static str {
        "EXPLAIN QUERY PLAN SELECT "
    }

    fn collects(&self, plan: &[Vec<Cell>]) -> Option<String> {
        let text = |row: &[Cell], column: usize| row.get(column).cloned().flatten().unwrap_or_default();
        // What belongs to a subquery is done for each row.
        let mut within: HashSet<String> = HashSet::new();
        plan.iter().find_map(|row| {
            let (id, parent, step) = (text(row, 0), text(row, 1), text(row, 3));
            if within.contains(&parent) || step.contains("SCALAR SUBQUERY") || step.contains("LIST SUBQUERY") {
                within.insert(id);
                return None;
            }
            // (Later claims begin at a floor, which an index finds: whether they sort, shows there only.)
            let sorts = step.starts_with("USE TEMP B-TREE") && (parent != "0" || !step.ends_with("ORDER BY"));
            (sorts || step.starts_with("MATERIALIZE")).then_some(step)
        })
    }

    fn version(&self) -> Option<&'static str> {
        Some(STATE)
    }

    /// Nothing has changed as long as nobody has committed anything, on the connection that has read the rows.
    fn guard(&self, sql: &mut Sql, table: &Table, rows: &[ReadRow<'_>], connection: u32) -> bool {
        let known = rows.first().map(|(_, version)| version).filter(|first| rows.iter().all(|(_, version)| version == *first));
        let Some(version) = known.filter(|version| **version >> 32 == i64::from(connection) && !table.rewrites) else {
            return false;
        };
        sql.push(" AND ").push(STATE).push(" = ").arg(version & i64::from(u32::MAX));
        true
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        // Triggers and foreign keys of any table: what is deleted here may change rows there, and those may come back.
        let text = "SELECT group_concat(coalesce(sql, name), ';') FROM sqlite_schema \
             WHERE tbl_name = ? COLLATE NOCASE OR type = 'trigger' OR sql LIKE '%ON DELETE SET %'";
        (text, vec![name.last().map_or("", String::as_str).into()])
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        ("SELECT lower(?)", vec![name.join(".").as_str().into()])
    }

    fn reads_only(&self) -> &'static str {
        "1 = 0"
    }

    fn has_rights(&self) -> bool {
        false
    }

    fn share(&self) -> &'static str {
        ""
    }

    fn compares_bytes(&self) -> bool {
        true
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn selected(&self, _: &TableColumn, reference: &str) -> String {
        reference.to_owned()
    }

    /// Text stays text, except where it could be taken for another type's: then it is an SQL literal.
    /// (`quote` is not for text: it stops at a NUL character.)
    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        let literal = format!("'''' || replace({reference}, '''', '''''') || ''''");
        let text = match column.kind {
            Kind::Int => return format!("CAST({reference} AS TEXT)"),
            Kind::Dynamic => literal,
            _ => format!(
                "CASE WHEN substr({reference}, 1, 1) = '''' OR substr({reference}, 1, 2) = 'X''' \
                 THEN {literal} ELSE {reference} END"
            ),
        };
        let text = percent_encoded(&text);
        format!(
            "CASE typeof({reference}) WHEN 'integer' THEN CAST({reference} AS TEXT) WHEN 'text' THEN {text} \
             WHEN 'null' THEN NULL ELSE quote({reference}) END"
        )
    }

    /// A column of text may hold anything.
    fn tells_key(&self, kind: Kind) -> bool {
        kind == Kind::Int
    }

    /// Only text needs it, and has got it: numbers and blobs are written without such signs.
    fn encoded(&self, text: String) -> String {
        text
    }

    fn differs(&self, one: &str, other: &str) -> String {
        format!("{one} IS NOT {other} COLLATE BINARY")
    }

    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        if let (Kind::Int, Ok(number)) = (column.kind, part.parse::<i64>()) {
            sql.arg(number);
            return;
        }
        match literal(part, column.kind) {
            // Read by SQLite, which wrote it; a sign in front, so that the cast does not make the
            // other side a number too.
            Arg::Real(_) => sql.push("+CAST(").arg(part).push(" AS REAL)"),
            arg => sql.arg(arg),
        };
    }
}

/// Reads what `key_text` wrote: an SQL literal, or plain text.
fn literal(part: &str, kind: Kind) -> Arg {
    let hex = part.strip_prefix("X'").and_then(|rest| rest.strip_suffix('\''));
    if let Some(bytes) = hex.and_then(unhex) {
        return Arg::Bytes(bytes);
    }
    if let Some(text) = part.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Arg::Text(text.replace("''", "'"));
    }
    // Where text is at home, `012` is text.
    if kind == Kind::Text || !part.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
        return Arg::Text(part.to_owned());
    }
    match (part.parse(), part.parse()) {
        (Ok(integer), _) => Arg::Int(integer),
        (_, Ok(real)) => Arg::Real(real),
        _ => Arg::Text(part.to_owned()),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |n: usize| text.get(n..n + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digits).collect()
}
