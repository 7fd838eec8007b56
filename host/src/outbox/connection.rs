//! A session over any of the three drivers.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor, IntoArguments, Pool};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::database::{Cell, Extras, Fetched, Purpose, Session};
use super::error::Error;
use super::sql::{Arg, Sql};
use super::table::Table;
use crate::signal::{Signal, Value};

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

/// Holds a connection once one was made. Sessions that share a slot take turns, a transaction each.
pub(super) type Slot<Db> = Arc<Mutex<Option<PoolConnection<Db>>>>;

/// A connection that is taken from the pool when it is first used.
pub(super) struct Connection<D: Driver> {
    pool: Pool<D::Db>,
    slot: Slot<D::Db>,
    /// The slot's content, from the beginning of a transaction to its end.
    held: Option<OwnedMutexGuard<Option<PoolConnection<D::Db>>>>,
}

impl<D: Driver> Connection<D> {
    pub(super) fn new(pool: Pool<D::Db>, slot: Slot<D::Db>) -> Self {
        Self { pool, slot, held: None }
    }

    fn held(&mut self) -> Result<&mut <D::Db as sqlx::Database>::Connection, Error> {
        let held = self.held.as_mut().and_then(|slot| slot.as_mut());
        Ok(held.ok_or_else(|| Error::Unreachable("the connection was lost".into()))?)
    }

    /// A connection that failed is not used again.
    fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = Error::from(error);
            if error.is_unreachable() {
                self.drop_connection();
            }
            error
        })
    }

    /// Inside a transaction: what was begun must not be met by the next user of the connection.
    fn drop_connection(&mut self) {
        if let Some(mut connection) = self.held.take().and_then(|mut slot| slot.take()) {
            connection.close_on_drop();
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
            let mut slot = self.slot.clone().lock_owned().await;
            if slot.is_none() {
                *slot = Some(self.pool.acquire().await?);
            }
            self.held = Some(slot);
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
        self.held = None;
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
