//! What SQLite's schema tells about a table: its columns, key and indexes, and what may keep its rows.
//!
//! Reads no row of a user. Next: `schema`, which checks what is found.

use std::sync::{Arc, Mutex, PoisonError};

use crate::database::{Cell, Session, number};
use crate::error::Error;
use crate::sql::{Placeholder, Sql};
use crate::table::{Description, Kind, TableColumn, grouped};

/// What depends on what in a database: triggers and foreign keys, of all tables.
#[derive(Default)]
pub(super) struct Dependencies {
    /// Changes with the schema.
    version: String,
    /// Name, table, and whether it fires when a row is deleted.
    triggers: Vec<(String, String, bool)>,
    /// The table that refers, the one that it refers to, and what a deletion there does.
    foreign_keys: Vec<(String, String, String)>,
}

const TRIGGERS: &str = "SELECT name, tbl_name, upper(sql) LIKE '% DELETE %' FROM sqlite_schema WHERE type = 'trigger'";
const FOREIGN_KEYS: &str = "SELECT DISTINCT s.name, f.\"table\", f.on_delete FROM sqlite_schema s, pragma_foreign_key_list(s.name) f \
    WHERE s.type = 'table'";

impl Dependencies {
    /// Reads them, unless the schema is what it was: there may be thousands of tables.
    pub(super) async fn known(known: &Mutex<Arc<Self>>, session: &mut dyn Session) -> Result<Arc<Self>, Error> {
        let text = |cell: &Cell| cell.clone().unwrap_or_default();
        let version = session.rows(Sql::new(Placeholder::Question, "SELECT schema_version FROM pragma_schema_version")).await?;
        let version = version.first().map(|row| text(&row[0])).unwrap_or_default();
        // (Of this connection: another file may have taken the name, with the same number.)
        let version = format!("{}:{version}", session.connection());
        let before = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if before.version == version {
            return Ok(before);
        }
        let triggers = session.rows(Sql::new(Placeholder::Question, TRIGGERS)).await?;
        let triggers = triggers.iter().map(|row| (text(&row[0]), text(&row[1]), row[2].as_deref() == Some("1")));
        let foreign_keys = session.rows(Sql::new(Placeholder::Question, FOREIGN_KEYS)).await?;
        let foreign_keys = foreign_keys.iter().map(|row| (text(&row[0]), text(&row[1]), text(&row[2])));
        let found = Arc::new(Self { version, triggers: triggers.collect(), foreign_keys: foreign_keys.collect() });
        *known.lock().unwrap_or_else(PoisonError::into_inner) = found.clone();
        Ok(found)
    }

    /// Whether a deletion may change other rows: a connection does not count its own changes among those of others.
    pub(super) fn rewrites(&self) -> bool {
        let sets = |(_, _, action): &(_, _, String)| action == "SET NULL" || action == "SET DEFAULT";
        !self.triggers.is_empty() || self.foreign_keys.iter().any(sets)
    }

    pub(super) fn refer_to<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a (String, String, String)> {
        self.foreign_keys.iter().filter(|(_, parent, _)| parent.eq_ignore_ascii_case(table))
    }

    /// What may refuse to let a row be deleted.
    pub(super) fn obstacles(&self, table: &str, enforced: bool) -> Vec<String> {
        let refuses = |(_, _, action): &&(_, _, String)| enforced && (action == "NO ACTION" || action == "RESTRICT");
        let foreign_keys = self.refer_to(table).filter(refuses).map(|(child, ..)| format!("a foreign key of table \"{child}\""));
        let fires = |(_, of, deletes): &&(_, String, bool)| *deletes && of.eq_ignore_ascii_case(table);
        let triggers = self.triggers.iter().filter(fires).map(|(name, ..)| format!("trigger \"{name}\""));
        foreign_keys.chain(triggers).collect()
    }
}

pub(super) async fn describe(session: &mut dyn Session, name: &[String]) -> Result<Option<Description>, Error> {
    let (schema, table) = match name {
        [schema, table] => (schema.as_str(), table.as_str()),
        name => ("main", name.last().map_or("", String::as_str)),
    };
    let mut sql = Sql::new(Placeholder::Question, "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(");
    sql.arg(table).push(", ").arg(schema).push(") ORDER BY cid");
    let rows = session.rows(sql).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut columns: Vec<TableColumn> = rows.iter().map(|row| column(row)).collect();
    let mut key: Vec<(u32, usize)> = rows.iter().enumerate().map(|(n, row)| (number(&row[3]), n)).collect();
    key.retain(|(place, _)| *place > 0);
    key.sort_unstable();
    let mut sql = Sql::new(Placeholder::Question, "SELECT name FROM pragma_index_list(");
    sql.arg(table).push(", ").arg(schema).push(") WHERE origin = 'pk'");
    if let [(_, only)] = key[..]
        && columns[only].sql_type.eq_ignore_ascii_case("integer")
        && session.rows(sql).await?.is_empty()
    {
        // A key without an index is the row's own number: nothing but an integer, and never NULL.
        (columns[only].kind, columns[only].nullable) = (Kind::Int, false);
    }
    let mut sql = Sql::new(Placeholder::Question, "SELECT l.name, i.name FROM pragma_index_list(");
    sql.arg(table).push(", ").arg(schema).push(") l, pragma_index_info(l.name, ").arg(schema);
    sql.push(") i WHERE l.partial = 0 ORDER BY l.seq, i.seqno");
    let indexes = grouped(session.rows(sql).await?);
    let mut sql =
        Sql::new(Placeholder::Question, "SELECT instr(upper(sql), 'AUTOINCREMENT') > 0 FROM sqlite_schema WHERE name = ");
    sql.arg(table);
    let counts = session.rows(sql).await?;
    let unique_keys = counts.iter().flatten().any(|cell| cell.as_deref() == Some("1"));
    let key = key.into_iter().map(|(_, n)| n).collect();
    Ok(Some(Description { columns, key, indexes, unique_keys, ..Description::default() }))
}

fn column(row: &[Cell]) -> TableColumn {
    let declared = row[1].clone().unwrap_or_default();
    TableColumn {
        name: row[0].clone().unwrap_or_default(),
        kind: affinity(&declared),
        db_type: declared.to_lowercase(),
        sql_type: declared,
        nullable: row[2].as_deref() == Some("0"),
        generated: matches!(row[4].as_deref(), Some("2" | "3")),
    }
}

/// The affinity of a declared type, by SQLite's own five rules. A column of any affinity may hold
/// text and blobs, one for integers too: it is treated like one for numbers.
fn affinity(declared: &str) -> Kind {
    let declared = declared.to_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Kind::Decimal
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Kind::Text
    } else if has("BLOB") || declared.is_empty() {
        Kind::Dynamic
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Kind::Float
    } else {
        Kind::Decimal
    }
}
