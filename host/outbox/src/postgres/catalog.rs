//! What PostgreSQL's catalog tells about a table: its columns, key and indexes, and what may keep its rows.
//!
//! Reads no row of a user. Next: `schema`, which checks what is found.

use crate::database::{Cell, Session};
use crate::error::Error;
use crate::sql::{Placeholder, Sql};
use crate::table::{Description, Kind, TableColumn, grouped};

/// A column's kind is that of the type under its domains, if that is one of the database's own.
const COLUMNS: &str = "SELECT a.attname::text, t.typname::text, format_type(a.atttypid, a.atttypmod), \
    (WITH RECURSIVE base AS (SELECT t.* UNION ALL \
    SELECT b.* FROM base JOIN pg_type b ON base.typtype = 'd' AND b.oid = base.typbasetype) \
    SELECT typname::text FROM base WHERE typtype = 'b' AND typnamespace = 'pg_catalog'::regnamespace), \
    (NOT a.attnotnull)::text, (a.attgenerated <> '')::text, \
    array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum)::text \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
    WHERE a.attrelid = to_regclass(";

const INDEXES: &str = "SELECT i.indexrelid::text, a.attname::text FROM pg_index i \
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
    WHERE i.indisvalid AND i.indpred IS NULL AND i.indrelid = to_regclass(";

/// What may keep a row from being deleted, and whether rows may be locked.
const OBSTACLES: &str = "SELECT o.kind, o.name FROM (\
    SELECT 'refuses' AS kind, 'foreign key \"' || conname || '\" of table \"' || conrelid::regclass || '\"' AS name, confrelid AS rel \
    FROM pg_constraint WHERE contype = 'f' AND confdeltype IN ('a', 'r') UNION ALL \
    SELECT 'rewrites', 'trigger \"' || tgname || '\"', tgrelid FROM pg_trigger \
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 8 <> 0 UNION ALL \
    SELECT 'rewrites', 'rule \"' || rulename || '\"', ev_class FROM pg_rewrite WHERE ev_type = '4' UNION ALL \
    SELECT 'rewrites', 'row-level security', oid FROM pg_class WHERE relrowsecurity UNION ALL \
    SELECT 'lockable', '', oid FROM pg_class WHERE has_any_column_privilege(oid, 'UPDATE')) o WHERE o.rel = to_regclass(";

pub(super) async fn describe(session: &mut dyn Session, name: &str) -> Result<Option<Description>, Error> {
    let mut sql = Sql::new(Placeholder::Numbered, COLUMNS);
    sql.arg(name).push(") AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum");
    let rows = session.rows(sql).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let columns = rows.iter().map(|row| column(row)).collect();
    let place = |row: &Vec<Cell>| row[6].as_deref().and_then(|place| place.parse::<i32>().ok());
    let mut key: Vec<(i32, usize)> = rows.iter().enumerate().filter_map(|(n, row)| place(row).map(|place| (place, n))).collect();
    key.sort_unstable();
    let mut sql = Sql::new(Placeholder::Numbered, INDEXES);
    sql.arg(name).push(") ORDER BY i.indexrelid, k.place");
    let indexes = grouped(session.rows(sql).await?);
    let key = key.into_iter().map(|(_, n)| n).collect();
    let mut sql = Sql::new(Placeholder::Numbered, OBSTACLES);
    sql.arg(name).push(")");
    let rows = session.rows(sql).await?;
    let is = |row: &Vec<Cell>, kind: &str| row[0].as_deref() == Some(kind);
    let obstacles = rows.iter().filter(|row| !is(row, "lockable")).filter_map(|row| row[1].clone()).collect();
    let rewrites = rows.iter().any(|row| is(row, "rewrites"));
    let lockable = rows.iter().any(|row| is(row, "lockable"));
    Ok(Some(Description { columns, key, indexes, rewrites, lockable, obstacles, ..Description::default() }))
}

fn column(row: &[Cell]) -> TableColumn {
    let text = |n: usize| row[n].clone().unwrap_or_default();
    TableColumn {
        name: text(0),
        db_type: text(1),
        sql_type: text(2),
        kind: kind(&text(3)),
        nullable: text(4) == "true",
        generated: text(5) == "true",
    }
}

fn kind(type_name: &str) -> Kind {
    match type_name {
        "bool" => Kind::Boolean,
        "int2" | "int4" | "int8" => Kind::Int,
        "float4" | "float8" => Kind::Float,
        "numeric" => Kind::Decimal,
        "text" | "varchar" | "name" => Kind::Text,
        "bpchar" => Kind::Padded,
        "inet" => Kind::Network,
        "bytea" => Kind::Bytes,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "uuid" => Kind::Uuid,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "timestamp" => Kind::Datetime,
        "timestamptz" => Kind::Timestamp,
        _ => Kind::Other,
    }
}
