//! Sessions over any of the three drivers.
//!
//! Must never reuse a connection that failed or was left inside a transaction. `pool` has the connections. Next: the
//! adapters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Executor, IntoArguments};

use super::database::{Cell, ExtraColumns, Fetched, Purpose, Row, Session, number};
use super::error::Error;
use super::hold::Hold;
use super::pool::{ConnectionPool, PooledConnection};
use super::sql::{Arg, Sql};
use super::table::Table;
use super::trial::{self, Rule};
use signalbus_core::signal::Value;
use signalbus_shares::Share;

/// Prepared statements that a connection keeps: a handful for each signal type.
pub(super) const STATEMENTS: usize = 500;

/// The longest that a claim or a settle waits for one statement: a server that has gone without a
/// word is given up then. (SQLite gives up sooner by itself, where another writes.)
const LONGEST: Duration = Duration::from_secs(60);
/// To count a table of many millions may take longer.
const LONGEST_READ: Duration = Duration::from_secs(3600);

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = |_| Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
}

/// What differs between the drivers.
pub(super) trait Driver: Send + Sync + 'static {
    type Db: sqlx::Database + sqlx::database::HasStatementCache;
    /// Whether several statements with arguments may go in one message: each costs a change of
    /// threads otherwise.
    const JOINS_STATEMENTS: bool = false;
    /// An expression for a number that changes with every commit of another connection.
    const OTHERS: Option<&'static str> = None;

    /// The statements that begin a transaction; `None` where each statement may stand by itself.
    /// A connection is `lent` where a pooler hands it on between transactions.
    fn begin(purpose: Purpose, behind_pooler: bool) -> Option<&'static str>;
    fn bind(args: Vec<Arg>) -> Result<<Self::Db as sqlx::Database>::Arguments, Error>;
    /// Whether a column of a result has a type that `value` reads.
    fn fits(_: &super::table::TableColumn, _result: &str) -> bool {
        true
    }
    /// The size of a row's values, in bytes.
    fn size(row: &<Self::Db as sqlx::Database>::Row) -> usize;
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

type Query<Db> = sqlx::query::Query<'static, Db, <Db as sqlx::Database>::Arguments>;

/// A session: it has a connection from the beginning of a transaction to its end.
pub(super) struct Connection<D: Driver> {
    connections: Arc<ConnectionPool<D::Db>>,
    share: Share,
    /// Its share of what only reads.
    reading: Option<Share>,
    /// The state of the database before anything was read, where that is done by a connection of its own.
    read_at: Option<i64>,
    held: Option<PooledConnection<D::Db>>,
    /// Of one statement.
    limit: Duration,
    state: Option<i64>,
}

impl<D: Driver> Connection<D> {
    pub(super) fn new(connections: Arc<ConnectionPool<D::Db>>, signal_type: Option<&str>) -> Self {
        let share = connections.share(signal_type);
        let reading = connections.readers().map(|readers| readers.share(signal_type));
        Self { connections, share, reading, read_at: None, held: None, limit: LONGEST, state: None }
    }

    fn held(&mut self) -> Result<&mut <D::Db as sqlx::Database>::Connection, Error> {
        let held = self.held.as_mut().map(|held| &mut *held.connection);
        held.ok_or_else(|| Error::Unreachable("the connection was lost".into()))
    }

    /// A connection that failed is not used again, nor are those that rested meanwhile.
    fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = Error::from(error);
            // (What is altered, is prepared again.)
            if error.is_unreachable() || error.is_altered() {
                self.drop_connection();
                self.connections.clear();
            }
            error
        })
    }

    /// Takes a connection for a transaction.
    async fn take(&mut self, purpose: Purpose) -> Result<(), Error> {
        self.drop_connection();
        // Others may commit before this transaction begins.
        self.state = None;
        trial::interrupt().await;
        let (pool, share) = match (self.connections.readers(), &self.reading) {
            (Some(readers), Some(share)) if purpose == Purpose::Read => (readers, share),
            _ => (&self.connections, &self.share),
        };
        // Before anything is read.
        let state = self.connections.state();
        self.held = Some(pool.take(share).await?);
        self.read_at = Some(state).filter(|_| !Arc::ptr_eq(pool, &self.connections));
        self.limit = if purpose == Purpose::Read { LONGEST_READ } else { LONGEST };
        Ok(())
    }

    /// Others who wait for the connection come next: what follows may take a while.
    async fn put_back(&mut self) {
        if let Some(held) = self.held.take() {
            held.put_back();
            tokio::task::yield_now().await;
        }
    }

    /// Inside a transaction: what was begun must not be met by the next user of the connection.
    fn drop_connection(&mut self) {
        if let Some(mut held) = self.held.take() {
            held.connection.close_on_drop();
        }
    }
}

/// A session with a statement that may be given up.
struct Midst<'a, D: Driver> {
    session: &'a mut Connection<D>,
    over: bool,
}

impl<D: Driver> Drop for Midst<'_, D> {
    fn drop(&mut self) {
        if !self.over {
            self.session.drop_connection();
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
            self.take(purpose).await?;
            self.look_for_others().await?;
            let Some(begin) = D::begin(purpose, self.connections.is_behind_pooler()) else { return Ok(()) };
            if let Some(held) = &mut self.held {
                held.begun = true;
                held.beginning = D::JOINS_STATEMENTS.then_some(begin);
            }
            if D::JOINS_STATEMENTS {
                return Ok(());
            }
            self.run(LONGEST, |connection| connection.execute(AssertSqlSafe(begin))).await.map(drop)
        })
    }

    fn execute(&mut self, sql: Sql) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            if D::JOINS_STATEMENTS {
                return self.execute_joined(sql, "").await;
            }
            let query = self.query(sql)?;
            let result = self.run(self.limit, |connection| Box::pin(query.execute(connection))).await?;
            Ok(D::affected(&result))
        })
    }

    fn rows(&mut self, sql: Sql) -> BoxFuture<'_, Result<Vec<Vec<Cell>>, Error>> {
        Box::pin(async move {
            let query = self.query(sql)?;
            let rows = self.run(self.limit, |connection| Box::pin(query.fetch_all(connection))).await?;
            // What cannot be decoded is a user's key: nothing can be recorded of it.
            let cell = |row: &<D::Db as sqlx::Database>::Row, position: usize| D::key(row, position).unwrap_or_default();
            let cells = |row| (0..sqlx::Row::len(row)).map(|position| cell(row, position)).collect();
            Ok(rows.iter().map(cells).collect())
        })
    }

    fn signals(
        &mut self,
        sql: Sql,
        table: Arc<Table>,
        extras: ExtraColumns,
        bytes: Option<usize>,
    ) -> BoxFuture<'_, Result<Fetched, Error>> {
        Box::pin(async move {
            let query = self.query(sql)?;
            let limit = self.limit;
            let most = bytes.unwrap_or(usize::MAX);
            let (rows, bytes, cut) = self.run(limit, |connection| Box::pin(fetch::<D>(query, connection, most))).await?;
            let len = rows.len();
            if rows.first().is_some_and(|row| !fits::<D>(row, &table)) {
                return Err(Error::altered(&table.name));
            }
            let connection = self.connection();
            let read_at = match self.read_at {
                Some(_) if trial::is_broken(Rule::StateWithRows) => Some(self.late_state().await?),
                read_at => read_at,
            };
            let decode = move |n: usize| {
                let row = row::<D>(&rows[n], &table, extras)?;
                let version = || read_at.unwrap_or_else(|| state(connection, row.version));
                Some(if D::OTHERS.is_some() { Row { version: version(), ..row } } else { row })
            };
            Ok(Fetched { len, bytes, cut, decode: Box::new(decode) })
        })
    }

    fn execute_and_commit(&mut self, sql: Sql) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            if !D::JOINS_STATEMENTS {
                let affected = self.execute(sql).await?;
                return self.commit().await.map(|()| affected);
            }
            let affected = self.execute_joined(sql, "; COMMIT").await?;
            self.put_back().await;
            Ok(affected)
        })
    }

    fn abandon(&mut self) {
        self.drop_connection();
        self.connections.clear();
    }

    fn connection(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| held.number)
    }

    fn knows_state(&self) -> bool {
        self.read_at.is_some()
    }

    fn state(&self) -> Option<i64> {
        self.state
    }

    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end("COMMIT"))
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let ended = self.end("ROLLBACK").await;
            // There may have been nothing to roll back: the transaction could not even begin.
            self.drop_connection();
            ended
        })
    }
}

impl<D: Driver> Connection<D>
where
    for<'c> &'c mut <D::Db as sqlx::Database>::Connection: Executor<'c, Database = D::Db>,
    <D::Db as sqlx::Database>::Arguments: IntoArguments<D::Db>,
{
    /// Runs a statement. Who gives it up in its midst keeps neither the connection, which cannot be used again, nor the
    /// turn: others may wait for that, and who gave up for them.
    async fn run<T>(
        &mut self,
        limit: Duration,
        statement: impl for<'c> FnOnce(&'c mut <D::Db as sqlx::Database>::Connection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let mut midst = Midst { session: self, over: false };
        let answer = within(limit, statement(midst.session.held()?)).await;
        midst.over = true;
        midst.session.checked(answer)
    }

    /// Nobody has to be let in where nobody else writes.
    async fn look_for_others(&mut self) -> Result<(), Error> {
        let Some(question) = D::OTHERS.filter(|_| self.read_at.is_none()) else { return Ok(()) };
        if !self.connections.pauses().is_some_and(|mut pauses| pauses.wants_to_know(Instant::now())) {
            return Ok(());
        }
        let version = self.number_of(question).await?;
        if let Some(mut pauses) = self.connections.pauses() {
            pauses.heard(version, Instant::now());
        }
        Ok(())
    }

    async fn number_of<N: std::str::FromStr + Default>(&mut self, expression: &str) -> Result<N, Error> {
        let question = AssertSqlSafe(format!("SELECT {expression}"));
        let row = self.run(self.limit, |connection| connection.fetch_one(question)).await?;
        Ok(number(&D::cell(&row, 0)?))
    }

    /// On trial: the state of the database as it is found after rows were read.
    async fn late_state(&mut self) -> Result<i64, Error> {
        trial::interrupt().await;
        let mut session = Self::new(self.connections.clone(), None);
        session.take(Purpose::Watch).await?;
        let state = state(session.connection(), session.number_of(D::OTHERS.unwrap_or("0")).await?);
        session.put_back().await;
        Ok(state)
    }

    fn query(&mut self, sql: Sql) -> Result<Query<D::Db>, Error> {
        let sql = match self.connections.side_schema() {
            Some(schema) => sql.with_sides_in(schema),
            None => sql,
        };
        let beginning = self.held.as_mut().and_then(|held| held.beginning.take());
        let text = match beginning {
            Some(begin) => format!("{begin}; {}", sql.text),
            None => sql.text,
        };
        let query = sqlx::query_with::<D::Db, _>(AssertSqlSafe(text), D::bind(sql.args)?);
        Ok(query.persistent(!self.connections.is_behind_pooler()))
    }

    /// Several statements in one message, of which the first is asked how much it has changed.
    async fn execute_joined(&mut self, mut sql: Sql, commit: &str) -> Result<u64, Error> {
        sql.push("; SELECT changes(), ").push(D::OTHERS.unwrap_or("0")).push(commit);
        let connection = self.connection();
        let rows = self.rows(sql).await?;
        let Some([changes, version]) = rows.last().map(Vec::as_slice) else { return Ok(0) };
        let state = state(connection, number(version));
        self.connections.found(state);
        self.state = Some(state);
        Ok(number(changes))
    }

    async fn end(&mut self, statement: &'static str) -> Result<(), Error> {
        if self.held.as_ref().is_none_or(|held| held.begun && held.beginning.is_none()) {
            self.run(LONGEST, |connection| connection.execute(statement)).await?;
        }
        self.put_back().await;
        Ok(())
    }
}

/// Reads rows up to a size, their size, and whether rows are left. A large row is read by itself.
async fn fetch<D: Driver>(
    query: Query<D::Db>,
    connection: &mut <D::Db as sqlx::Database>::Connection,
    most: usize,
) -> Result<(Vec<<D::Db as sqlx::Database>::Row>, usize, bool), sqlx::Error>
where
    for<'c> &'c mut <D::Db as sqlx::Database>::Connection: Executor<'c, Database = D::Db>,
    <D::Db as sqlx::Database>::Arguments: IntoArguments<D::Db>,
{
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut found = query.fetch(connection);
    while let Some(row) = found.try_next().await? {
        let size = D::size(&row);
        if bytes + size > most && !rows.is_empty() {
            return Ok((rows, bytes, true));
        }
        bytes += size;
        rows.push(row);
    }
    Ok((rows, bytes, false))
}

fn fits<D: Driver>(row: &<D::Db as sqlx::Database>::Row, table: &Table) -> bool {
    let columns = sqlx::Row::columns(row).iter().zip(&table.columns);
    columns.into_iter().all(|(result, column)| D::fits(column, sqlx::TypeInfo::name(sqlx::Column::type_info(result))))
}

/// What a connection says of the state of the database; it compares with nothing that another has said.
fn state(connection: u32, version: i64) -> i64 {
    (i64::from(connection) << 32) + version
}

/// Decodes a row. Returns `None` if its key cannot be decoded: then nothing can be recorded of it, and it stays.
fn row<D: Driver>(row: &<D::Db as sqlx::Database>::Row, table: &Table, extras: ExtraColumns) -> Option<Row> {
    let mut values = Vec::with_capacity(table.columns.len());
    let mut broken = None;
    for (position, column) in table.columns.iter().enumerate() {
        values.push(match D::value(row, position, column) {
            Ok(value) => value,
            Err(_) if table.order_key_told && table.order_key.contains(&position) => return None,
            Err(error) => {
                broken = Some(format!("column \"{}\" cannot be decoded: {error}", column.name));
                Value::Null
            }
        });
    }
    let mut position = table.columns.len();
    let mut next = |wanted: bool| {
        if !wanted {
            return Some(None);
        }
        position += 1;
        D::key(row, position - 1).ok()
    };
    let key = next(extras.key)?;
    let order_key = match table.order_key_told {
        true => table.order_key_of(&values),
        false => next(extras.order_key)?.unwrap_or_default(),
    };
    let hold = next(extras.hold)?.and_then(|text| Hold::parse(&text));
    let version = number(&next(extras.version)?);
    let key = match (key, table.integer_key().map(|n| &values[n])) {
        (Some(key), _) => key,
        (None, Some(Value::Int64(number))) => number.to_string(),
        (None, Some(Value::Text(text))) => signalbus_core::key::join_key(&[text]),
        _ => return None,
    };
    Some(Row { key, order_key, hold, version, values, broken })
}
