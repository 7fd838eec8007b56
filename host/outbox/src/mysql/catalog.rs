//! What `information_schema` tells about a table: its columns, key and indexes, and what may keep its rows.
//!
//! Reads no row of a user. Next: `schema`, which checks what is found.

use super::MySqlDialect;
use crate::database::{Cell, Dialect, Session};
use crate::error::Error;
use crate::sql::{Placeholder, Sql};
use crate::table::{Description, Kind, TableColumn, grouped};

pub(super) async fn describe(session: &mut dyn Session, name: &[String]) -> Result<Option<Description>, Error> {
    let table = name.last().map_or("", String::as_str);
    let from = |text: &str| {
        let mut sql = Sql::new(Placeholder::Question, text);
        sql.push(" WHERE table_name = ").arg(table).push(" AND table_schema = ");
        match name {
            [schema, _] => sql.arg(schema.as_str()),
            _ => sql.push("database()"),
        };
        sql
    };
    let mut sql = from("SELECT column_name, data_type, column_type, is_nullable, extra FROM information_schema.columns");
    sql.push(" ORDER BY ordinal_position");
    let rows = session.rows(sql).await?;
    let counts = rows.iter().any(|row| row[4].as_deref().is_some_and(|extra| extra.contains("auto_increment")));
    let mut columns: Vec<TableColumn> = rows.iter().map(|row| column(row)).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    if columns.iter().any(|column| column.sql_type == "longtext") {
        mark_json(session, from, &mut columns).await?;
    }
    let mut sql = from("SELECT index_name, column_name FROM information_schema.statistics");
    sql.push(" AND column_name IS NOT NULL ORDER BY index_name, seq_in_index");
    let parts = session.rows(sql).await?;
    let key: Vec<usize> = parts
        .iter()
        .filter(|row| row[0].as_deref() == Some("PRIMARY"))
        .filter_map(|row| columns.iter().position(|column| Some(&column.name) == row[1].as_ref()))
        .collect();
    let engines = "SELECT t.engine FROM information_schema.tables t \
         JOIN information_schema.engines e ON e.engine = t.engine AND e.transactions <> 'YES'";
    let unsafe_engine = session.rows(from(engines)).await?.into_iter().flatten().next().flatten();
    let indexes = grouped(parts);
    let obstacles = obstacles(session, name).await?;
    let unique_keys = key.len() == 1 && (counts || columns[key[0]].kind == Kind::Uuid);
    Ok(Some(Description { columns, key, indexes, unsafe_engine, unique_keys, obstacles, ..Description::default() }))
}

/// What may refuse to let a row be deleted.
async fn obstacles(session: &mut dyn Session, name: &[String]) -> Result<Vec<String>, Error> {
    let table = name.last().map_or("", String::as_str);
    let schema = |sql: &mut Sql| {
        match name {
            [schema, _] => sql.arg(schema.as_str()),
            _ => sql.push("database()"),
        };
    };
    let mut sql = Sql::new(
        Placeholder::Question,
        "SELECT concat('foreign key \"', constraint_name, '\" of table \"', table_name, '\"') \
         FROM information_schema.referential_constraints WHERE delete_rule NOT IN ('CASCADE', 'SET NULL') \
         AND referenced_table_name = ",
    );
    sql.arg(table).push(" AND unique_constraint_schema = ");
    schema(&mut sql);
    sql.push(
        " UNION ALL SELECT concat('trigger \"', trigger_name, '\"') FROM information_schema.triggers \
         WHERE event_manipulation = 'DELETE' AND event_object_table = ",
    );
    sql.arg(table).push(" AND event_object_schema = ");
    schema(&mut sql);
    Ok(session.rows(sql).await?.into_iter().flatten().flatten().collect())
}

/// MariaDB's JSON is a LONGTEXT with a check that its text is valid.
async fn mark_json(session: &mut dyn Session, from: impl Fn(&str) -> Sql, columns: &mut [TableColumn]) -> Result<(), Error> {
    let version = session.rows(Sql::new(Placeholder::Question, "SELECT version()")).await?;
    if !version.iter().flatten().flatten().any(|version| version.contains("MariaDB")) {
        return Ok(());
    }
    let checks = "SELECT check_clause FROM (SELECT check_clause, table_name, constraint_schema AS table_schema \
         FROM information_schema.check_constraints) c";
    let checks = session.rows(from(checks)).await?;
    for column in columns.iter_mut().filter(|column| column.sql_type == "longtext") {
        let valid = format!("json_valid({})", MySqlDialect.quote(&column.name));
        if checks.iter().flatten().flatten().any(|check| *check == valid) {
            (column.kind, column.db_type) = (Kind::Json, "json".to_owned());
        }
    }
    Ok(())
}

fn column(row: &[Cell]) -> TableColumn {
    let text = |n: usize| row[n].clone().unwrap_or_default();
    let (data_type, column_type) = (text(1).to_lowercase(), text(2));
    TableColumn {
        name: text(0),
        kind: kind(&data_type, column_type.contains("unsigned")),
        db_type: column_type.clone(),
        sql_type: column_type.replace(" unsigned", "").replace(" zerofill", ""),
        nullable: text(3) == "YES",
        generated: text(4).contains("GENERATED") && !text(4).contains("DEFAULT_GENERATED"),
    }
}

fn kind(data_type: &str, unsigned: bool) -> Kind {
    match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" if unsigned => Kind::Unsigned,
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Kind::Int,
        // The driver reads a year as an unsigned number.
        "year" => Kind::Unsigned,
        "float" | "double" => Kind::Float,
        "decimal" => Kind::Decimal,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
        "json" => Kind::Json,
        "uuid" => Kind::Uuid,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "datetime" => Kind::Datetime,
        "timestamp" => Kind::Timestamp,
        "bit" => Kind::Bits,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => Kind::Geometry,
        _ => Kind::Other,
    }
}
