//! The loop that one writes by hand: selects a batch, and deletes it, over one connection of the same driver.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::tables::Key;

/// Drains by keys of a type: how one is read, the first position, and the statements.
macro_rules! drained {
    ($connection:ident, $immediate:expr, $key:ty, $none:expr, $of:expr, $after:expr, $select:expr, $delete:expr) => {{
        let (begun, mut rows, mut position): (Instant, u64, $key) = (Instant::now(), 0, $none);
        loop {
            if $immediate {
                $connection.execute("BEGIN IMMEDIATE").await.unwrap();
            }
            let batch = $after(sqlx::query($select), position.clone()).fetch_all(&mut $connection).await.unwrap();
            let keys: Vec<$key> = batch.iter().map($of).collect();
            let Some(last) = keys.last() else { break };
            position = last.clone();
            rows += $delete(keys).execute(&mut $connection).await.unwrap().rows_affected();
            if $immediate {
                $connection.execute("COMMIT").await.unwrap();
            }
        }
        (rows, begun.elapsed())
    }};
}

/// A DELETE with a list of places.
macro_rules! listed {
    ($key:ty) => {
        |keys: Vec<$key>| {
            let places = vec!["?"; keys.len()].join(", ");
            let query = sqlx::query(AssertSqlSafe(format!("DELETE FROM order_placed WHERE id IN ({places})")));
            keys.into_iter().fold(query, |query, key| query.bind(key))
        }
    };
}

const QUESTION: &str = "SELECT id, customer, payload FROM order_placed WHERE id > ? ORDER BY id LIMIT 1000";
const NUMBERED: &str = "SELECT id, customer, payload FROM order_placed WHERE id > $1 ORDER BY id LIMIT 1000";
const VERSIONED: &str = "SELECT id, customer, payload, changed_at FROM order_placed WHERE id > ? ORDER BY id LIMIT 1000";
const COMPOSITE: &str = "SELECT tenant, number, customer, payload FROM order_placed WHERE (tenant, number) > (?, ?) \
    ORDER BY tenant, number LIMIT 1000";

/// Returns the rows, and the time that they took.
pub async fn raw(url: &str, key: Key) -> (u64, Duration) {
    match url.split(':').next() {
        Some("sqlite") => sqlite(url, key).await,
        Some("mysql") => mariadb(url, key).await,
        _ => postgres(url, key).await,
    }
}

async fn sqlite(url: &str, key: Key) -> (u64, Duration) {
    let options: sqlx::sqlite::SqliteConnectOptions = url.replace("&foreign_keys=on", "").parse().unwrap();
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let options = options.synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;
    match key {
        Key::Uuid => {
            let after = |query: Query, key: String| query.bind(key);
            drained!(connection, true, String, String::new(), |row| row.get(0), after, QUESTION, listed!(String))
        }
        Key::Composite => {
            let after = |query: Query, (tenant, number): (i64, i64)| query.bind(tenant).bind(number);
            let delete = |keys: Vec<(i64, i64)>| {
                let places = vec!["(?, ?)"; keys.len()].join(", ");
                let text = format!("DELETE FROM order_placed WHERE (tenant, number) IN (VALUES {places})");
                let bind = |query: Query, (tenant, number)| query.bind(tenant).bind(number);
                keys.into_iter().fold(sqlx::query(AssertSqlSafe(text)), bind)
            };
            drained!(connection, true, (i64, i64), (-1, -1), |row| (row.get(0), row.get(1)), after, COMPOSITE, delete)
        }
        _ => {
            let after = |query: Query, key: i64| query.bind(key);
            drained!(connection, true, i64, 0, |row| row.get(0), after, QUESTION, listed!(i64))
        }
    }
}

async fn mariadb(url: &str, key: Key) -> (u64, Duration) {
    let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
    type Query = sqlx::query::Query<'static, sqlx::MySql, sqlx::mysql::MySqlArguments>;
    if key == Key::Uuid {
        let after = |query: Query, key: String| query.bind(key);
        return drained!(connection, false, String, String::new(), |row| row.get(0), after, QUESTION, listed!(String));
    }
    let select = if key == Key::Versioned { VERSIONED } else { QUESTION };
    let after = |query: Query, key: i64| query.bind(key);
    drained!(connection, false, i64, 0, |row| row.get(0), after, select, listed!(i64))
}

async fn postgres(url: &str, key: Key) -> (u64, Duration) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;
    if key == Key::Uuid {
        const SELECT: &str =
            "SELECT id::text, customer, payload FROM order_placed WHERE id > $1::uuid ORDER BY order_placed.id LIMIT 1000";
        let after = |query: Query, key: String| query.bind(key);
        let delete = |keys: Vec<String>| sqlx::query("DELETE FROM order_placed WHERE id = ANY($1::text[]::uuid[])").bind(keys);
        let none = "00000000-0000-0000-0000-000000000000".to_owned();
        return drained!(connection, false, String, none, |row| row.get(0), after, SELECT, delete);
    }
    let after = |query: Query, key: i64| query.bind(key);
    let delete = |keys: Vec<i64>| sqlx::query("DELETE FROM order_placed WHERE id = ANY($1)").bind(keys);
    drained!(connection, false, i64, 0, |row| row.get(0), after, NUMBERED, delete)
}
