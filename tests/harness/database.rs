//! A database of a test's own, on any of the three systems.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tempfile::TempDir;

use super::server::{Kind, Server};
use super::{PATIENCE, pause};

/// Which system a database runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Sqlite,
    Postgres,
    Mariadb,
}

/// An empty database with the side tables in it.
pub struct Database {
    pub system: System,
    pub url: String,
    folder: TempDir,
}

impl Database {
    pub async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        // As most applications that have foreign keys do.
        let url = format!("sqlite://{}?mode=rwc&foreign_keys=on", folder.path().join("outbox.db").display());
        Self { system: System::Sqlite, url, folder }.migrated().await
    }

    pub async fn postgres() -> Self {
        Self::on(System::Postgres, server(Kind::Postgres).await).await
    }

    pub async fn postgres17() -> Self {
        Self::on(System::Postgres, server(Kind::Postgres17).await).await
    }

    pub async fn postgres18() -> Self {
        Self::on(System::Postgres, server(Kind::Postgres18).await).await
    }

    pub async fn mariadb() -> Self {
        Self::on(System::Mariadb, server(Kind::Mariadb).await).await
    }

    /// A new database on a server.
    pub async fn on(system: System, server: &Server) -> Self {
        Self::without_outbox(system, server).await.migrated().await
    }

    /// The same, of a service that has no outbox.
    pub async fn without_outbox(system: System, server: &Server) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = server.url(if system == System::Postgres { "postgres" } else { "mysql" });
        let folder = TempDir::new().unwrap();
        let administration = Self { system, url: admin, folder };
        administration.run(&format!("CREATE DATABASE {name}")).await;
        Self { url: server.url(&name), ..administration }
    }

    async fn migrated(self) -> Self {
        let outbox = signalbus::outbox::Outbox::open(&self.url, 1).unwrap();
        assert!(outbox.migrate().await.unwrap(), "a new database has no side tables");
        self
    }

    /// Removes a database of the shared PostgreSQL server: benches make many large ones.
    pub async fn discard(self) {
        let Some((server, name)) = self.url.rsplit_once('/').filter(|_| self.system == System::Postgres) else { return };
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    }

    /// A folder of the test's own.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        let statements = AssertSqlSafe(sql.to_owned());
        let done = match self.system {
            System::Sqlite => self.sqlite_connection().await.execute(statements).await.map(drop),
            System::Postgres => self.postgres_connection().await.execute(statements).await.map(drop),
            System::Mariadb => self.mariadb_connection().await.execute(statements).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The single number that a query answers.
    pub async fn number(&self, sql: &str) -> i64 {
        let query = AssertSqlSafe(sql.to_owned());
        let answer = match self.system {
            System::Sqlite => self.sqlite_connection().await.fetch_one(query).await.map(|row| row.get(0)),
            System::Postgres => self.postgres_connection().await.fetch_one(query).await.map(|row| row.get(0)),
            System::Mariadb => self.mariadb_connection().await.fetch_one(query).await.map(|row| row.get(0)),
        };
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of a query's rows, as text.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        let query = AssertSqlSafe(sql.to_owned());
        macro_rules! lines {
            ($connection:expr) => {
                $connection.fetch_all(query).await.map(|rows| {
                    let line = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
                    rows.iter().map(|row| line(row.try_get_unchecked(0).unwrap())).collect()
                })
            };
        }
        let answer = match self.system {
            System::Sqlite => lines!(self.sqlite_connection().await),
            System::Postgres => lines!(self.postgres_connection().await),
            System::Mariadb => lines!(self.mariadb_connection().await),
        };
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until no other session is left: a server goes on for a while with what a killed client wanted.
    pub async fn wait_alone(&self) {
        let others = self.either(
            "SELECT 0",
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND backend_type = 'client backend'",
            "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
        );
        let begun = std::time::Instant::now();
        while self.number(others).await > 0 {
            assert!(begun.elapsed() < PATIENCE, "others use the database");
            tokio::time::sleep(pause(begun)).await;
        }
    }

    /// One of three texts, by the system.
    pub fn either<'a>(&self, sqlite: &'a str, postgres: &'a str, mariadb: &'a str) -> &'a str {
        self.choose(sqlite, postgres, mariadb)
    }

    /// One of three things, by the system.
    pub fn choose<T>(&self, sqlite: T, postgres: T, mariadb: T) -> T {
        match self.system {
            System::Sqlite => sqlite,
            System::Postgres => postgres,
            System::Mariadb => mariadb,
        }
    }

    /// As patient as an application that shares its file with others should be.
    pub async fn sqlite_connection(&self) -> sqlx::SqliteConnection {
        let options: sqlx::sqlite::SqliteConnectOptions = self.url.replace("&foreign_keys=on", "").parse().unwrap();
        sqlx::SqliteConnection::connect_with(&options.busy_timeout(std::time::Duration::from_secs(60))).await.unwrap()
    }

    pub async fn postgres_connection(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.url).await.unwrap()
    }

    pub async fn mariadb_connection(&self) -> sqlx::MySqlConnection {
        sqlx::MySqlConnection::connect(&self.url).await.unwrap()
    }

    /// Makes `order_placed (id, customer, payload)` with this many rows; the payload is 200 bytes.
    pub async fn orders(&self, rows: u32) {
        let payload = match self.system {
            System::Postgres => "repeat('x', 200)",
            System::Sqlite => "printf('%.200c', 'x')",
            System::Mariadb => "REPEAT('x', 200)",
        };
        let text = if self.system == System::Mariadb { "VARCHAR(255)" } else { "TEXT" };
        let integer = if self.system == System::Sqlite { "INTEGER" } else { "BIGINT" };
        self.run(&format!("CREATE TABLE order_placed (id {integer} PRIMARY KEY, customer {text}, payload {text})")).await;
        let source = self.series(rows);
        let key = match self.system {
            System::Sqlite => "'customer ' || (i % 7)",
            System::Postgres => "'customer ' || (i % 7)::text",
            System::Mariadb => "CONCAT('customer ', i % 7)",
        };
        if rows > 0 {
            self.run(&format!("INSERT INTO order_placed SELECT i, {key}, {payload} FROM {source}")).await;
        }
    }

    /// A table expression with the numbers from 1 on in its column `i`.
    pub fn series(&self, rows: u32) -> String {
        match self.system {
            System::Sqlite => {
                format!("(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n)")
            }
            System::Postgres => format!("generate_series(1, {rows}) AS n (i)"),
            System::Mariadb => format!("(SELECT seq AS i FROM seq_1_to_{rows}) n"),
        }
    }
}

/// Starting a server takes seconds: off the runtime.
async fn server(kind: Kind) -> &'static Server {
    tokio::task::spawn_blocking(move || Server::shared(kind)).await.unwrap()
}
