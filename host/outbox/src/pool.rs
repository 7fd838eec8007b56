//! Connections that sessions share, a transaction each, by signal type.
//!
//! Must never hand out a connection that failed, or to a file that has lost its name. Next: `connection`, the sessions.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use sqlx::Pool;
use sqlx::pool::PoolConnection;

use super::error::Error;
use super::pauses::Pauses;
use signalbus_shares::{Measure, Pool as Turns, Share, Taken};

/// How many connections were made, of whatever pool.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Connections that sessions take turns with, a transaction each. (The pool itself would ask the
/// server for a sign of life after every one.)
pub(super) struct ConnectionPool<Db: sqlx::Database> {
    pool: Pool<Db>,
    /// A pooler hands connections on between transactions: nothing may be left behind on them, no
    /// setting and no prepared statement.
    behind_pooler: Arc<AtomicBool>,
    plain: Option<<Db::Connection as sqlx::Connection>::Options>,
    /// The right to use a connection, by signal type: the one that has had least of their time comes first.
    turns: Arc<Turns>,
    /// Connections that nobody uses now, with their numbers; the one used last is taken first.
    idle: Mutex<Vec<(u32, PoolConnection<Db>)>>,

    /// Where others wait for the same lock by trying again and again.
    pauses: Option<Mutex<Pauses>>,
    /// Connections that only read, where that needs no lock, and those here write.
    readers: Option<Arc<Self>>,
    /// See [`Self::state`].
    state: AtomicI64,
    /// The schema of the side tables, ready for SQL, with a dot.
    side_schema: OnceLock<String>,
    /// The file that connections are to, and what it was when one was last made: another file may take its name.
    file: Option<(PathBuf, Mutex<Option<FileId>>)>,
}

/// No connection has found any.
const UNKNOWN: i64 = -1;

/// A device, and the number of a file on it.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl<Db: sqlx::Database> ConnectionPool<Db> {
    pub(super) fn new(pool: Pool<Db>) -> Arc<Self> {
        Arc::new(Self::with(pool, Arc::default(), None, None, None))
    }

    fn with(
        pool: Pool<Db>,
        behind_pooler: Arc<AtomicBool>,
        plain: Option<<Db::Connection as sqlx::Connection>::Options>,
        pauses: Option<Mutex<Pauses>>,
        file: Option<(PathBuf, Mutex<Option<FileId>>)>,
    ) -> Self {
        let turns = Turns::new(pool.options().get_max_connections(), Measure::Time);
        let (readers, state) = (None, AtomicI64::new(UNKNOWN));
        let (idle, side_schema) = (Mutex::default(), OnceLock::new());
        Self { pool, behind_pooler, plain, turns, idle, pauses, readers, state, side_schema, file }
    }

    /// The same, for a database in a file, in which one writer locks out all others, and no reader.
    pub(super) fn single_writer(writer: Pool<Db>, readers: Pool<Db>, file: &Path) -> Arc<Self> {
        let pauses = Some(Mutex::new(Pauses::default()));
        let file = || Some((file.to_owned(), Mutex::default()));
        let readers = Self::with(readers, Arc::default(), None, None, file());
        Arc::new(Self { readers: Some(Arc::new(readers)), ..Self::with(writer, Arc::default(), None, pauses, file()) })
    }

    /// Connections for what only reads, if there are others for that.
    pub(super) fn readers(&self) -> Option<&Arc<Self>> {
        self.readers.as_ref()
    }

    /// The state of the database as a connection that writes has found it last: as long as that connection finds it
    /// again, nobody else has committed anything since.
    pub(super) fn state(&self) -> i64 {
        self.state.load(Relaxed)
    }

    pub(super) fn found(&self, state: i64) {
        self.state.store(state, Relaxed);
    }

    /// Whether connections are behind_pooler turns out when one is made; `plain` is how to connect to a
    /// pooler that refuses settings.
    pub(super) fn perhaps_pooled(
        pool: Pool<Db>,
        behind_pooler: Arc<AtomicBool>,
        plain: <Db::Connection as sqlx::Connection>::Options,
    ) -> Arc<Self> {
        Arc::new(Self::with(pool, behind_pooler, Some(plain), None, None))
    }

    /// Every statement looks for the side tables in a schema; `schema` is ready for SQL, with a dot.
    pub(super) fn keep_sides_in(&self, schema: String) {
        let _ = self.side_schema.set(schema);
    }

    pub(super) fn side_schema(&self) -> Option<&str> {
        self.side_schema.get().map(String::as_str)
    }

    /// How many connections are in use, of how many.
    pub(super) fn usage(&self) -> (usize, usize) {
        let (used, all) = self.readers.as_ref().map(|readers| readers.usage()).unwrap_or_default();
        (used + self.turns.used() as usize, all + self.pool.options().get_max_connections() as usize)
    }

    /// Whether a pooler hands connections on between transactions, as far as is known.
    pub(super) fn is_behind_pooler(&self) -> bool {
        self.behind_pooler.load(Relaxed)
    }

    /// Returns the share of a signal type's sessions; what serves no type has one of its own.
    pub(super) fn share(&self, signal_type: Option<&str>) -> Share {
        // No signal type has an empty name.
        self.turns.share(signal_type.unwrap_or_default())
    }

    /// Takes a connection, when it is the turn of this share.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) async fn take(self: &Arc<Self>, share: &Share) -> Result<PooledConnection<Db>, Error> {
        let turn = share.take(1).await;
        let pause = self.pauses().map(|mut pauses| pauses.due(Instant::now())).unwrap_or_default();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.follow_file();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (number, connection) = match idle {
            Some(idle) => idle,
            None => (MADE.fetch_add(1, Relaxed), self.connect().await?),
        };
        let pool = self.clone();
        Ok(PooledConnection { pool, connection, number, beginning: None, begun: false, since: Instant::now(), _turn: turn })
    }

    async fn connect(&self) -> Result<PoolConnection<Db>, Error> {
        let refused = match (self.pool.acquire().await, &self.plain) {
            (Ok(connection), _) => return Ok(connection),
            (Err(refused), None) => return Err(refused.into()),
            (Err(refused), Some(plain)) => (refused, plain),
        };
        // PgBouncer calls a setting in the start-up packet a violation of the protocol.
        let violation =
            |error: &sqlx::Error| error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "08P01");
        let (refused, plain) = refused;
        if self.is_behind_pooler() || !violation(&refused) {
            return Err(refused.into());
        }
        self.behind_pooler.store(true, Relaxed);
        self.pool.set_connect_options(plain.clone());
        Ok(self.pool.acquire().await?)
    }

    /// Lets go of connections to a file that has lost its name to another one.
    fn follow_file(&self) {
        let Some((path, known)) = &self.file else { return };
        // While there is none, it may be on its way.
        let Some(now) = file_id(path) else { return };
        let before = known.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if before.is_some_and(|before| before != now) {
            self.clear();
        }
    }

    /// Lets go of the connections that nobody uses now.
    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, mut connection) in idle {
            connection.close_on_drop();
        }
        if let Some(readers) = &self.readers {
            readers.clear();
        }
    }

    /// The pauses that leave the lock to others, where there is one for all.
    pub(super) fn pauses(&self) -> Option<MutexGuard<'_, Pauses>> {
        self.pauses.as_ref().map(|pauses| pauses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection in use, and the right to use one.
pub(super) struct PooledConnection<Db: sqlx::Database> {
    pool: Arc<ConnectionPool<Db>>,
    pub(super) connection: PoolConnection<Db>,
    /// No other connection of the process has it.
    pub(super) number: u32,
    /// What begins the transaction, where that goes with the first statement.
    pub(super) beginning: Option<&'static str>,
    pub(super) begun: bool,
    since: Instant,
    _turn: Option<Taken>,
}

impl<Db: sqlx::Database> PooledConnection<Db> {
    /// Gives it to whoever comes next.
    pub(super) fn put_back(self) {
        if let Some(mut pauses) = self.pool.pauses().filter(|_| self.begun) {
            pauses.owe(self.since, Instant::now());
        }
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push((self.number, self.connection));
    }
}
