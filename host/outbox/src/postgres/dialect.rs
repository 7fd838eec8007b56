//! The SQL that only PostgreSQL understands, and how its keys and values are written as text.
//!
//! Runs no statement. Next: `database`, which says what each part is for.

use super::PostgresDialect;
use crate::database::{Cell, Dialect, ReadRow};
use crate::ranges::ranges;
use crate::sql::{Arg, Placeholder, Sql};
use crate::table::{Kind, Table, TableColumn};
use signalbus_core::key::split_key;

/// (`relhasrules` would not do: a VACUUM resets it some time after the last rule has gone.)
const SHAPE: &str = "SELECT concat(c.oid, c.relrowsecurity, \
    (SELECT md5(string_agg(concat_ws(' ', rulename, ev_enabled), ',' ORDER BY rulename)) FROM pg_rewrite \
    WHERE ev_class = c.oid AND ev_type = '4'), (SELECT md5(string_agg(concat_ws(' ', attname, atttypid, \
    atttypmod, attnotnull, attgenerated), ',' ORDER BY attnum)) FROM pg_attribute \
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), \
    (SELECT md5(string_agg(concat_ws(' ', tgname, tgenabled), ',' ORDER BY tgname)) FROM pg_trigger \
    WHERE tgrelid = c.oid AND NOT tgisinternal AND tgtype & 8 <> 0), \
    (SELECT indkey::text FROM pg_index WHERE indrelid = c.oid AND indisprimary)) FROM pg_class c WHERE c.oid = to_regclass(?)";

/// A value as its type's output function writes it. A cast does the same, except that it strips the
/// blanks that pad a `char(n)`, and adds `/32` to an address.
fn written(column: &TableColumn, reference: &str) -> String {
    match column.kind {
        Kind::Padded => format!("textin(bpcharout({reference}))"),
        Kind::Network => format!("textin(inet_out({reference}))"),
        _ => format!("{reference}::text"),
    }
}

impl Dialect for PostgresDialect {
    fn placeholder(&self) -> Placeholder {
        Placeholder::Numbered
    }

    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn now(&self) -> &'static str {
        "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn ensure_lane(&self) -> [&'static str; 2] {
        ["INSERT INTO signalbus_lane (signal_type, table_name) VALUES (", ") ON CONFLICT DO NOTHING"]
    }

    fn finds_schema(&self) -> Option<&'static str> {
        Some("SELECT nspname::text FROM pg_namespace WHERE nspname = ?")
    }

    fn schema(&self) -> &'static str {
        include_str!("../schema/postgres.sql")
    }

    fn finds_index(&self) -> &'static str {
        "SELECT indexname::text FROM pg_indexes WHERE indexname = ?"
    }

    fn explain(&self) -> &'static str {
        "EXPLAIN (FORMAT JSON) SELECT "
    }

    fn plans_without_sorting(&self) -> Option<&'static str> {
        Some(
            "SELECT set_config('enable_sort', 'off', true), set_config('enable_hashagg', 'off', true), \
             set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)",
        )
    }

    fn collects(&self, plan: &[Vec<Cell>]) -> Option<String> {
        let text = plan.first()?.first()?.as_deref()?;
        let plan: serde_json::Value = serde_json::from_str(text).ok()?;
        let mut steps = vec![plan[0]["Plan"].clone()];
        while let Some(step) = steps.pop() {
            let kind = step["Node Type"].as_str().unwrap_or_default();
            let hashed = kind == "Aggregate" && step["Strategy"].as_str().is_some_and(|strategy| strategy != "Sorted");
            if hashed || ["Sort", "WindowAgg", "SetOp"].contains(&kind) {
                return Some(if hashed { "HashAggregate".into() } else { kind.into() });
            }
            // What belongs to a subquery is done for each row.
            let for_each = |step: &serde_json::Value| step["Parent Relationship"].as_str().is_some_and(|of| of == "SubPlan");
            steps.extend(step["Plans"].as_array().into_iter().flatten().filter(|step| !for_each(step)).cloned());
        }
        None
    }

    /// The transaction that wrote the row. (As text: sqlx asks the server about types that it does not know.)
    fn version(&self) -> Option<&'static str> {
        Some("t.xmin::text")
    }

    fn version_now(&self) -> Option<&'static str> {
        Some("CASE WHEN t.xmin = pg_current_xact_id_if_assigned()::xid THEN '-1' ELSE t.xmin::text END")
    }

    fn numbers_versions(&self) -> bool {
        true
    }

    fn lock_rows(&self, may_lock: bool) -> &'static str {
        if may_lock { " FOR UPDATE SKIP LOCKED" } else { "" }
    }

    fn shape(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        (SHAPE, vec![self.table_name(name).as_str().into()])
    }

    fn reads_only(&self) -> &'static str {
        "pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'"
    }

    fn full_name(&self, name: &[String]) -> (&'static str, Vec<Arg>) {
        let text = "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(?)";
        (text, vec![self.table_name(name).as_str().into()])
    }

    fn held_keys(&self, sql: &mut Sql, signal: &str, keys: &mut dyn Iterator<Item = &str>) {
        let keys = keys.map(str::to_owned).collect();
        sql.push("md5(signal_type || ':' || signal_key) IN (SELECT md5(").arg(signal).push("::text || ':' || k) FROM unnest(");
        sql.arg(Arg::Texts(keys)).push("::text[]) k)");
    }

    /// (Long keys do not fit into an index.)
    fn sorted_key(&self) -> &'static str {
        "left(signal_key, 24) COLLATE \"C\""
    }

    fn held_under(&self, sql: &mut Sql, signal: &str, column: &str, key: &str) {
        sql.push("md5(h.signal_type || ':' || h.").push(column).push(") = md5(").arg(signal);
        sql.push("::text || ':' || ").push(key).push(")");
    }

    /// (A table that was empty when it was last looked at would be read as a whole for each row.)
    fn per_row(&self) -> &'static str {
        " OFFSET 0"
    }

    /// (The table itself is locked before, with more patience.)
    fn impatient(&self) -> &'static str {
        " AND set_config('lock_timeout', '200ms', true) <> ''"
    }

    /// (A list of arguments would be another statement for each length, and be searched from its start for each row.)
    fn texts(&self, sql: &mut Sql, texts: &[String]) {
        sql.push("(SELECT unnest(").arg(Arg::Texts(texts.to_vec())).push("::text[]))");
    }

    fn set_rows_per_lookup(&self) -> usize {
        4
    }

    /// (Hashed, whatever is planned: of an array, few elements are expected.)
    fn set(&self, sql: &mut Sql, query: &dyn Fn(&mut Sql)) {
        sql.push("(SELECT unnest(ARRAY(");
        query(sql);
        sql.push(")))");
    }

    fn guard(&self, sql: &mut Sql, _: &Table, rows: &[ReadRow<'_>], _: u32) -> bool {
        let mut distinct: Vec<String> = rows.iter().map(|(_, version)| version.to_string()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        // (Hashed, whatever is planned: each row may be of a transaction of its own.)
        sql.push(" AND (xmin IN (SELECT v::xid FROM unnest(").arg(Arg::Texts(distinct)).push("::text[]) v)) IS TRUE");
        true
    }

    /// (A takeover changes the claim's key: only that waits for this lock.)
    fn share(&self) -> &'static str {
        " FOR KEY SHARE"
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn selected(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Decimal | Kind::Date | Kind::Time | Kind::Datetime | Kind::Timestamp | Kind::Network | Kind::Other => {
                written(column, reference)
            }
            _ => reference.to_owned(),
        }
    }

    fn key_text(&self, column: &TableColumn, reference: &str) -> String {
        match column.kind {
            Kind::Padded => format!("{reference}::text"),
            _ => written(column, reference),
        }
    }

    fn kept(&self, column: &TableColumn, reference: &str) -> String {
        written(column, reference)
    }

    fn restored(&self, column: &TableColumn, reference: &str) -> String {
        format!("{reference}::{}", column.sql_type)
    }

    fn overriding(&self) -> &'static str {
        " OVERRIDING SYSTEM VALUE"
    }

    fn key_arg(&self, sql: &mut Sql, column: &TableColumn, part: &str) {
        match part.parse::<i64>() {
            Ok(number) if column.kind == Kind::Int => sql.arg(number).push("::int8"),
            _ => sql.arg(part).push("::text::").push(&column.sql_type),
        };
    }

    fn range(&self, sql: &mut Sql, column: &str, first: i64, last: i64) {
        sql.push(column).push(" BETWEEN ").arg(first).push("::int8 AND ").arg(last).push("::int8");
    }

    /// Arrays: one argument per column, whatever the number of keys, so that one plan serves all.
    fn key_in(&self, sql: &mut Sql, table: &Table, keys: &[&str]) {
        let columns: Vec<&TableColumn> = table.key_columns().collect();
        // (The elements of an array of arrays are no arrays.)
        if let [column] = columns[..]
            && !column.sql_type.ends_with("[]")
        {
            let name = self.quote(&column.name);
            if let Some(ranges) = ranges(table, keys) {
                sql.push("(").list(" OR ", ranges, |sql, (first, last)| self.range(sql, &name, first, last));
                sql.push(")");
                return;
            }
            sql.push(&name).push(" = ANY(");
            if column.kind == Kind::Int {
                let numbers = keys.iter().filter_map(|key| key.parse().ok()).collect();
                sql.arg(Arg::Ints(numbers)).push("::int8[])");
            } else {
                let texts = keys.iter().map(|key| split_key(key).collect()).collect();
                sql.arg(Arg::Texts(texts)).push("::text[]::").push(&column.sql_type).push("[])");
            }
            return;
        }
        let split: Vec<Vec<_>> = keys.iter().map(|key| split_key(key).collect()).collect();
        let names: Vec<String> = columns.iter().map(|column| self.quote(&column.name)).collect();
        sql.push("(").push(&names.join(", ")).push(") IN (SELECT ");
        sql.list(", ", columns.iter().enumerate(), |sql, (n, column)| {
            sql.push(&format!("k.k{n}::{}", column.sql_type));
        });
        sql.push(" FROM unnest(");
        sql.list(", ", 0..columns.len(), |sql, n| {
            let texts = split.iter().map(|parts| parts[n].to_string()).collect();
            sql.arg(Arg::Texts(texts)).push("::text[]");
        });
        let aliases: Vec<String> = (0..columns.len()).map(|n| format!("k{n}")).collect();
        sql.push(&format!(") AS k({}))", aliases.join(", ")));
    }
}
