//! The side tables of version 1, and what a relay wrote into them.

use super::database::{Database, System};

/// The session that version 1 wrote values in: it decides how they look as text.
const POSTGRES: &str = "SET datestyle = 'ISO,YMD'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; \
    SET bytea_output = 'hex'; SET extra_float_digits = 1; ";
const MARIADB: &str = "SET SESSION time_zone = '+00:00', \
    sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION'; ";

/// When every dead letter of version 1 died.
pub const DIED_AT: i64 = 1_760_000_000_000;

impl Database {
    /// Puts side tables of version 1 into the place of those that are there.
    pub async fn return_to_version_1(&self) {
        for table in ["schema", "lane", "claim", "hold"] {
            self.run(&format!("DROP TABLE IF EXISTS signalbus_{table}")).await;
        }
        self.run(self.either(
            include_str!("../fixtures/side-tables-1/sqlite.sql"),
            include_str!("../fixtures/side-tables-1/postgres.sql"),
            include_str!("../fixtures/side-tables-1/mysql.sql"),
        ))
        .await;
    }

    /// Moves rows to the dead letters, as version 1 did: every column by itself, inside the database. `key` is the text
    /// of a row's key.
    pub async fn bury_by_version_1(&self, signal: &str, table: &str, key: &str) {
        let mut script = self.either("", POSTGRES, MARIADB).to_owned();
        script += &format!(
            "INSERT INTO signalbus_dead_letter (signal_type, signal_key, attempts, reason, died_at) \
             SELECT '{signal}', {key}, 3, 'it''s broken', {DIED_AT} FROM {table} t; "
        );
        for (position, column) in self.columns(table).await.iter().enumerate() {
            let (name, kind) = column.rsplit_once(' ').unwrap();
            let quote = self.either("\"", "\"", "`");
            let stored = self.stored(kind, &format!("t.{quote}{}{quote}", name.replace(quote, &quote.repeat(2))));
            script += &format!(
                "INSERT INTO signalbus_dead_value (letter_id, position, name, value) SELECT l.id, {position}, '{name}', {stored} \
                 FROM {table} t CROSS JOIN signalbus_dead_letter l WHERE l.signal_type = '{signal}' AND l.signal_key = {key}; "
            );
        }
        script += &format!("DELETE FROM {table}");
        self.run(&script).await;
    }

    /// The name of each column, and its type.
    async fn columns(&self, table: &str) -> Vec<String> {
        let query = self.either(
            "SELECT name || ' x' FROM pragma_table_xinfo('TABLE') ORDER BY cid",
            // (The type under a domain, if there is one.)
            "WITH RECURSIVE base AS (SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = 'TABLE'::regclass \
             AND attnum > 0 AND NOT attisdropped UNION ALL SELECT attnum, attname, typbasetype FROM base \
             JOIN pg_type t ON t.oid = atttypid AND typtype = 'd') SELECT attname || ' ' || typname FROM base \
             JOIN pg_type t ON t.oid = atttypid AND typtype <> 'd' ORDER BY attnum",
            "SELECT CONCAT(column_name, ' ', data_type) FROM information_schema.columns \
             WHERE table_schema = database() AND table_name = 'TABLE' ORDER BY ordinal_position",
        );
        self.lines(&query.replace("TABLE", table)).await
    }

    fn stored(&self, kind: &str, column: &str) -> String {
        match (self.system, kind) {
            (System::Sqlite, _) => column.to_owned(),
            (System::Postgres, "bpchar") => format!("textin(bpcharout({column}))"),
            (System::Postgres, "inet") => format!("textin(inet_out({column}))"),
            (System::Postgres, _) => format!("{column}::text"),
            (_, kind) if kind.ends_with("blob") || kind.ends_with("binary") => column.to_owned(),
            (_, "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "geometrycollection") => column.to_owned(),
            (_, "float" | "double") => format!("CAST({column} * 1e0 AS CHAR)"),
            (_, "bit") => format!("CAST({column} + 0 AS CHAR)"),
            (_, "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "json") => {
                format!("CONVERT({column} USING utf8mb4)")
            }
            _ => format!("CAST({column} AS CHAR)"),
        }
    }
}
