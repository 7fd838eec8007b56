//! A session over any of the three drivers.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor, IntoArguments, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::database::{Cell, Extras, Fetched, Purpose, Session};
use super::error::Error;
use super::sql::{Arg, Sql};
use super::table::Table;
use crate::signal::{Signal, Value};

/// Prepared statements that a connection keeps: a handful for each signal type.
pub(super) const STATEMENTS: usize = 500;

/// What differs between the drivers.
pub(super) trait Driver: Send + Sync + 'static {
    type Db: sqlx::Database;

    /// The statements that begin a transaction.
    fn begin(purpose: Purpose) -> &'static str;
    fn bind(args: Vec<Arg>) -> Result<<Self::Db as sqlx::Database>::Arguments, Error>;
    fn affected(result: &<Self::Db as sqlx::Database>::QueryResult) -> u64;
    /// A cell that holds text or an integer, as text.
    fn cell(row: &<Self::Db as sqlx::Database>::Row, position: usize) -> Result<Cell, Error>;
    /// A cell that tells rows apart: never another text than the database has.
    fn key(row: &<Self::Db as sqlx::Database>::Row, position: usize) -> Result<Cell, Error> {
        Self::cell(row, position)
    }
    /// A cell of a user's column, exact.
    fn value(
        row: &<Self::Db as sqlx::Database>::Row,
        position: usize,
        column: &super::table::TableColumn,
    ) -> Result<Value, Error>;
}

/// Connections that sessions take turns with, a transaction each. (The pool itself would ask the
/// server for a sign of life after every one.)
pub(super) struct Shelf<Db: sqlx::Database> {
    pool: Pool<Db>,
    turns: Arc<Semaphore>,
    /// Connections that nobody uses now; the one used last is taken first.
    idle: Mutex<Vec<PoolConnection<Db>>>,
}

impl<Db: sqlx::Database> Shelf<Db> {
    pub(super) fn new(pool: Pool<Db>) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(pool.options().get_max_connections() as usize));
        Arc::new(Self { pool, turns, idle: Mutex::default() })
    }

    /// How many connections are in use, of how many.
    pub(super) fn usage(&self) -> (usize, usize) {
        let most = self.pool.options().get_max_connections() as usize;
        (most.saturating_sub(self.turns.available_permits()), most)
    }

    async fn take(&self) -> Result<Held<Db>, Error> {
        let closed = |_| Error::Unreachable("the connections are closed".into());
        let turn = self.turns.clone().acquire_owned().await.map_err(closed)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(Held { connection, _turn: turn })
    }

    fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for mut connection in idle {
            connection.close_on_drop();
        }
    }

    fn put_back(&self, held: Held<Db>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(held.connection);
    }
}

/// A connection in use, and the right to use one.
struct Held<Db: sqlx::Database> {
    connection: PoolConnection<Db>,
    _turn: OwnedSemaphorePermit,
}

/// A session: it has a connection from the beginning of a transaction to its end.
pub(super) struct Connection<D: Driver> {
    shelf: Arc<Shelf<D::Db>>,
    held: Option<Held<D::Db>>,
}

impl<D: Driver> Connection<D> {
    pub(super) fn new(shelf: Arc<Shelf<D::Db>>) -> Self {
        Self { shelf, held: None }
    }

    fn held(&mut self) -> Result<&mut <D::Db as sqlx::Database>::Connection, Error> {
        let held = self.held.as_mut().map(|held| &mut *held.connection);
        held.ok_or_else(|| Error::Unreachable("the connection was lost".into()))
    }

    /// A connection that failed is not used again, nor are those that rested meanwhile.
    fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = Error::from(error);
            if error.is_unreachable() {
                self.drop_connection();
                self.shelf.clear();
            }
            error
        })
    }

    /// Inside a transaction: what was begun must not be met by the next user of the connection.
    fn drop_connection(&mut self) {
        if let Some(mut held) = self.held.take() {
            held.connection.close_on_drop();
        }
    }
}

impl<D: Driver> Drop for Connection<D> {
    fn drop(&mut self) {
        self.drop_connection();
    }
}

impl<D: Driver> Session for Connection<D>
where
    for<'c> &'c mut <D::Db as sqlx::Database>::Connection: Executor<'c, Database = D::Db>,
    <D::Db as sqlx::Database>::Arguments: IntoArguments<D::Db>,
{
    fn begin(&mut self, purpose: Purpose) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.drop_connection();
            self.held = Some(self.shelf.take().await?);
            let begun = self.held()?.execute(AssertSqlSafe(D::begin(purpose))).await;
            self.checked(begun.map(drop))
        })
    }

    fn execute(&mut self, sql: Sql) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let query = sqlx::query_with::<D::Db, _>(AssertSqlSafe(sql.text), D::bind(sql.args)?);
            let result = query.execute(self.held()?).await;
            self.checked(result.map(|result| D::affected(&result)))
        })
    }

    fn rows(&mut self, sql: Sql) -> BoxFuture<'_, Result<Vec<Vec<Cell>>, Error>> {
        Box::pin(async move {
            let query = sqlx::query_with::<D::Db, _>(AssertSqlSafe(sql.text), D::bind(sql.args)?);
            let rows = query.fetch_all(self.held()?).await;
            let rows = self.checked(rows)?;
            let cells = |row: &<D::Db as sqlx::Database>::Row| {
                (0..sqlx::Row::len(row)).map(|position| D::cell(row, position)).collect()
            };
            rows.iter().map(cells).collect()
        })
    }

    fn signals(&mut self, sql: Sql, table: Arc<Table>, extras: Extras) -> BoxFuture<'_, Result<Fetched, Error>> {
        Box::pin(async move {
            let query = sqlx::query_with::<D::Db, _>(AssertSqlSafe(sql.text), D::bind(sql.args)?);
            let rows = query.fetch_all(self.held()?).await;
            let rows = self.checked(rows)?;
            let len = rows.len();
            Ok(Fetched { len, decode: Box::new(move |n| signal::<D>(&rows[n], &table, extras)) })
        })
    }

    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end("COMMIT"))
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end("ROLLBACK"))
    }
}

impl<D: Driver> Connection<D>
where
    for<'c> &'c mut <D::Db as sqlx::Database>::Connection: Executor<'c, Database = D::Db>,
{
    async fn end(&mut self, statement: &'static str) -> Result<(), Error> {
        let ended = self.held()?.execute(statement).await;
        self.checked(ended.map(drop))?;
        if let Some(held) = self.held.take() {
            self.shelf.put_back(held);
        }
        Ok(())
    }
}

fn signal<D: Driver>(
    row: &<D::Db as sqlx::Database>::Row,
    table: &Table,
    extras: Extras,
) -> Result<Signal, Error> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (position, column) in table.columns.iter().enumerate() {
        values.push(D::value(row, position, column)?);
    }
    let mut position = table.columns.len();
    let mut next = |wanted: bool| {
        if !wanted {
            return Ok(None);
        }
        position += 1;
        D::key(row, position - 1)
    };
    let key = next(extras.key)?;
    let order_key = next(extras.order_key)?.unwrap_or_default();
    let attempts: u32 = super::number(&next(extras.attempts)?);
    let key = match (key, table.integer_key().map(|n| &values[n])) {
        (Some(key), _) => key,
        (None, Some(Value::Int64(number))) => number.to_string(),
        (None, Some(Value::Text(text))) => super::table::join_key(&[text]),
        _ => return Err(Error::Table(format!("table \"{}\": a row has no key", table.name.join(".")))),
    };
    Ok(Signal { key, order_key, attempt: attempts + 1, values })
}
