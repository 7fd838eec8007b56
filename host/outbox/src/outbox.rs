//! An outbox: opens the adapter that its URL names, and finds in it the tables of signal types.
//!
//! Must never hand out a table with a fatal fault, nor one whose lane is another table's. Next: `examine`, which looks
//! for faults; `signal_table`, which is handed out.

use std::sync::Arc;

use super::database::{Cell, Database, Purpose, number, statement};
use super::identity::Identity;
#[cfg(feature = "mysql")]
use super::mysql;
#[cfg(feature = "postgres")]
use super::postgres;
use super::signal_table::Shape;
use super::sql::{Arg, Sql};
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::table::name_parts;
use super::{Error, Fault, SignalTable, Source, schema};

/// A database that contains signal tables.
#[derive(Clone)]
pub struct Outbox {
    pub(super) database: Arc<dyn Database>,
    pub(super) source_name: Option<String>,
    /// Where the side tables are, if they are in a schema of their own.
    pub(super) side_schema: Option<String>,
}

impl Outbox {
    /// Opens the outbox at `url`: `sqlite://…`, `postgres://…` or `mysql://…`.
    ///
    /// Connections are opened lazily.
    ///
    /// # Errors
    /// The URL is invalid, or its scheme is not supported.
    pub fn open(url: &str, max_connections: u32) -> Result<Self, Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        let database: Arc<dyn Database> = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Arc::new(sqlite::Sqlite::open(url)?),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Arc::new(postgres::Postgres::open(url, max_connections)?),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Arc::new(mysql::MySql::open(url, max_connections)?),
            // Only where a feature is off: with all of them, each of these was matched above.
            scheme if ["sqlite", "postgres", "postgresql", "mysql", "mariadb"].contains(&scheme) => {
                return Err(Error::Table(format!(
                    "database url: this binary was built without support for {scheme}://; rebuild it with its Cargo feature"
                )));
            }
            _ => {
                return Err(Error::Table(format!("database url: unknown scheme \"{scheme}\"; use sqlite, postgres or mysql")));
            }
        };
        Ok(Self { database, source_name: None, side_schema: None })
    }

    /// Sets the name of the database in the ids of signals, instead of the one that `migrate` gave it.
    #[must_use]
    pub fn with_source(self, name: Option<String>) -> Self {
        Self { source_name: name, ..self }
    }

    /// Keeps the side tables in a schema of their own, instead of the connection's.
    ///
    /// # Errors
    /// The database has no schemas.
    pub fn with_side_schema(self, name: Option<String>) -> Result<Self, Error> {
        if let Some(name) = &name {
            let dialect = self.database.dialect();
            if dialect.finds_schema().is_none() {
                let text = format!("`database.side_schema` is \"{name}\", and SQLite has no schemas; remove it");
                return Err(Error::Table(text));
            }
            self.database.keep_sides_in(format!("{}.", dialect.quote(name)));
        }
        Ok(Self { side_schema: name, ..self })
    }

    /// Resolves a signal type against its table.
    ///
    /// # Errors
    /// Every fatal problem of the table at once, or the database's error.
    pub async fn signal_table(&self, source: &Source) -> Result<SignalTable, Error> {
        // Before the rest: what is altered meanwhile shows later.
        let shape = Shape::of(self.database.dialect(), source);
        let shown = self.read(self.statement(&shape.text, &shape.args)).await?.into_iter().flatten().next().flatten();
        let shape = Shape { shown, ..shape };
        let (table, faults) = self.examine(source).await?;
        let fatal: Vec<String> = faults
            .into_iter()
            .filter_map(|fault| match fault {
                Fault::Fatal(text) => Some(text),
                Fault::Doubtful(_) => None,
            })
            .collect();
        let Some(mut table) = table.filter(|_| fatal.is_empty()) else {
            return Err(Error::Table(fatal.join("; ")));
        };
        self.take_lane(source).await?;
        let numbered = self.database.dialect().numbers_versions();
        table.recurring &= !numbered && table.id.is_none();
        let identity = Identity::new(&source.signal, &self.source().await?, &table, numbered);
        Ok(SignalTable::new(self.database.clone(), &source.signal, table, identity, shape))
    }

    /// Makes the lane of a signal type, or finds that it is its own: the rows of two tables must not meet in one.
    async fn take_lane(&self, source: &Source) -> Result<(), Error> {
        let (text, args) = self.database.dialect().full_name(&name_parts(&source.table));
        let name = self.read(self.statement(text, &args)).await?.into_iter().flatten().next().flatten().unwrap_or_default();
        let ensure = self.database.dialect().ensure_lane();
        let mut sql = self.statement(ensure[0], &[]);
        sql.arg(source.signal.as_str()).push(", ").arg(name.as_str()).push(ensure[1]);
        let mut session = self.database.session(None);
        session.begin(Purpose::Write).await?;
        session.execute_and_commit(sql).await.map_err(schema::missing)?;
        let text = "SELECT table_name FROM signalbus_lane WHERE signal_type = ?";
        let taken = self.read(self.statement(text, &[source.signal.as_str().into()])).await?;
        let taken = taken.into_iter().flatten().next().flatten().unwrap_or_default();
        if taken == name {
            return Ok(());
        }
        if self.database.describe(&name_parts(&taken)).await?.is_some() {
            let signal = &source.signal;
            return Err(Error::Table(format!(
                "signal type \"{signal}\" belongs to table {taken} in this database, and not to {name}: their claims and dead \
                 letters would get mixed up; rename one of the two signal types, or, if the type has moved, \
                 DELETE FROM signalbus_lane WHERE signal_type = '{signal}'"
            )));
        }
        // Its table was renamed, or dropped.
        let text = "UPDATE signalbus_lane SET table_name = ? WHERE signal_type = ?";
        let sql = self.statement(text, &[name.as_str().into(), source.signal.as_str().into()]);
        session.begin(Purpose::Write).await?;
        session.execute_and_commit(sql).await.map(drop)
    }

    /// Counts the rows of a signal type's table that are to be sent: no dead letters, and nothing that was sent.
    ///
    /// # Errors
    /// The table does not exist, or the database's error.
    pub async fn pending(&self, source: &Source) -> Result<u64, Error> {
        let name = self.database.dialect().table_name(&name_parts(source.view.as_ref().unwrap_or(&source.table)));
        let text = "SELECT (SELECT count(*) FROM NAME) - (SELECT count(*) FROM signalbus_hold WHERE signal_type = ? AND state <> 'retry')";
        let args = [Arg::from(source.signal.as_str())];
        let mut sql = self.statement("", &[]);
        let (before, behind) = text.split_once("NAME").unwrap_or_default();
        sql.push(before).push(&name).append(self.statement(behind, &args));
        let rows = self.read(sql).await;
        let rows = rows.map_err(|error| match error {
            Error::Refused { message, .. } => Error::Table(format!("signal type \"{}\": {message}", source.signal)),
            error => error,
        })?;
        Ok(rows.first().map(|row| number(&row[0])).unwrap_or_default())
    }

    pub(super) async fn read(&self, sql: Sql) -> Result<Vec<Vec<Cell>>, Error> {
        let mut session = self.database.session(None);
        session.begin(Purpose::Read).await?;
        let rows = session.rows(sql).await?;
        session.commit().await?;
        Ok(rows)
    }

    pub(super) fn statement(&self, text: &str, args: &[Arg]) -> Sql {
        statement(self.database.dialect(), text, args)
    }
}
