//! What can go wrong between the relay and its database.

/// Why the outbox could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database can't be reached, or the connection to it was lost.
    #[error("database: {0}")]
    Unreachable(String),
    /// The database answered, and refused.
    #[error("database: {message}")]
    Refused {
        message: String,
        /// Another try at once may succeed: a deadlock, a lock that was busy.
        passing: bool,
    },
    /// The side tables are missing or of another version.
    #[error("{0}; run `signalbus migrate`")]
    Schema(String),
    /// The user's tables do not fit the configuration.
    #[error("{0}")]
    Table(String),
}

impl Error {
    /// Whether the database is out of reach, rather than unwilling.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The error's kind, as metrics label it: `unreachable`, `passing` or `refused`.
    pub fn kind(&self) -> &'static str {
        match self {
            _ if self.is_unreachable() => "unreachable",
            _ if self.is_passing() => "passing",
            _ => "refused",
        }
    }

    /// Whether trying again at once is sensible.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Refused { passing: true, .. })
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => refused(&*error),
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
                Self::Refused { message: error.to_string(), passing: false }
            }
            sqlx::Error::PoolTimedOut => Self::Unreachable("no connection could be made".into()),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

/// SQLSTATE classes 08 (connection), 28 (who are you?), 3D (no such database) and 57P (server going
/// down) mean "not reachable", and so do MariaDB's 1044, 1045 and 1049;
/// 40001, 40P01 (PostgreSQL, MariaDB), 5 and 6 (SQLite busy, locked) pass by themselves.
fn refused(error: &dyn sqlx::error::DatabaseError) -> Error {
    let message = error.message().to_owned();
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "mysql")]
    let number = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number());
    #[cfg(not(feature = "mysql"))]
    let number: Option<u16> = None;
    let class = ["08", "28", "3D", "57P"].iter().any(|class| code.starts_with(class));
    if class || code == "53300" || matches!(number, Some(1044 | 1045 | 1049)) {
        return Error::Unreachable(message);
    }
    let lock_timeout = matches!(number, Some(1205 | 1213));
    // An extended SQLite code holds the primary one in its low byte.
    #[cfg(feature = "sqlite")]
    let is_sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
    #[cfg(not(feature = "sqlite"))]
    let is_sqlite = false;
    match is_sqlite.then(|| code.parse::<u32>().ok()).flatten().map(|code| code & 0xff) {
        Some(5 | 6) => Error::Refused { message, passing: true },
        Some(10) => Error::Refused { message: format!("{message}; is the disk full?"), passing: false },
        Some(14) => Error::Unreachable(message),
        _ => Error::Refused { message, passing: matches!(&*code, "40001" | "40P01") || lock_timeout },
    }
}
