//! Errors of the outbox; the one place that classifies what the drivers report.
//!
//! A database's error that is not known to pass by itself must never count as transient. Next: `runner`
//! in `signalbus-relay`, which pauses after an error.

/// An error of the outbox.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, or the connection to it was lost.
    #[error("database: {0}")]
    Unreachable(String),
    /// The database returned an error.
    #[error("database: {message}")]
    Refused { message: String, cause: Cause },
    /// The side tables are missing or have another version.
    #[error("{0}; run `signalbus migrate`")]
    Schema(String),
    /// The user's tables do not fit the configuration.
    #[error("{0}")]
    Table(String),
    /// A table was altered since it was looked at: it is to be opened again.
    #[error("{0} was altered while it was read; try again")]
    Altered(String),
}

/// What an error says of another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It may succeed at once: a deadlock, or a busy lock.
    Passing,
    /// Somebody holds a lock for longer than the relay waits.
    Locked,
    /// It may succeed later, with other rows as well as with these: the disk is full, a statement took too long.
    Exhausted,
    /// It fails again unless something is changed.
    Final,
}

impl Error {
    /// Returns whether the database cannot be reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Returns the error's kind, as used in metrics: `unreachable`, `passing` or `refused`.
    pub fn kind(&self) -> &'static str {
        match self {
            _ if self.is_unreachable() => "unreachable",
            _ if self.is_passing() => "passing",
            _ => "refused",
        }
    }

    /// Returns whether the error is transient, so that an immediate retry may succeed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Refused { cause: Cause::Passing | Cause::Locked, .. })
    }

    /// Returns whether the rows of a statement are to blame: without some of them, it might have succeeded.
    pub(crate) fn is_resistance(&self) -> bool {
        matches!(self, Self::Refused { cause: Cause::Locked | Cause::Final, .. })
    }

    pub(crate) fn altered(name: &[String]) -> Self {
        Self::Altered(format!("table \"{}\"", name.join(".")))
    }

    /// Returns whether a table was altered since it was looked at.
    pub fn is_altered(&self) -> bool {
        matches!(self, Self::Altered(_))
    }

    /// Returns whether there is too little space or time now: it may succeed later.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Refused { cause: Cause::Exhausted, .. })
    }

    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Refused { cause: Cause::Locked, .. })
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => refused(&*error),
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
                Self::Refused { message: error.to_string(), cause: Cause::Final }
            }
            sqlx::Error::PoolTimedOut => Self::Unreachable("no connection could be made".into()),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

/// SQLSTATE classes 08 (connection), 28 (authorization), 3D (unknown database) and 57P (shutdown) mean
/// "unreachable", and so do MariaDB's 1044, 1045 and 1049. So does a session that the server has ended (25P03; 1927,
/// 4031), and a server that has become read-only in a switchover (25006; 1290, 1836): new connections may lead to
/// another one. 40001 and 40P01 (PostgreSQL, MariaDB) and SQLite's 5 and 6 (busy, locked) are transient. 55P03 and
/// MariaDB's 1205 are locks; 53 and 57014, 1021, 1114, 1969 and 3024, and SQLite's 13 mean that there is too little
/// space or time.
fn refused(error: &dyn sqlx::error::DatabaseError) -> Error {
    let message = error.message().to_owned();
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "mysql")]
    let number = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number());
    #[cfg(not(feature = "mysql"))]
    let number: Option<u16> = None;
    // PostgreSQL, of a statement that was prepared before its table was altered.
    if code == "0A000" && message.contains("cached plan") {
        return Error::Altered("a table".into());
    }
    let class = ["08", "28", "3D", "57P"].iter().any(|class| code.starts_with(class));
    let ended = matches!(&*code, "53300" | "25P03" | "25006");
    if class || ended || matches!(number, Some(1044 | 1045 | 1049 | 1290 | 1836 | 1927 | 4031)) {
        return Error::Unreachable(message);
    }
    // An extended SQLite code holds the primary one in its low byte.
    #[cfg(feature = "sqlite")]
    let is_sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
    #[cfg(not(feature = "sqlite"))]
    let is_sqlite = false;
    match is_sqlite.then(|| code.parse::<u32>().ok()).flatten().map(|code| code & 0xff) {
        Some(5 | 6) => Error::Refused { message, cause: Cause::Passing },
        Some(10) => Error::Refused { message: format!("{message}; is the disk full?"), cause: Cause::Exhausted },
        Some(13) => Error::Refused { message, cause: Cause::Exhausted },
        Some(14) => Error::Unreachable(message),
        _ => {
            let cause = match (&*code, number) {
                ("55P03", _) | (_, Some(1205)) => Cause::Locked,
                ("40001" | "40P01", _) | (_, Some(1213)) => Cause::Passing,
                (_, Some(1021 | 1114 | 1969 | 3024)) => Cause::Exhausted,
                (code, _) if code == "57014" || code.starts_with("53") => Cause::Exhausted,
                _ => Cause::Final,
            };
            Error::Refused { message, cause }
        }
    }
}
