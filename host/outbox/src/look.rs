//! Polling: which signal types have something due, and how large the backlog is.
//!
//! Never claims or changes anything, except for the statements given to [`Outbox::run`]. Next: `watcher`
//! and `sample` in `signalbus-relay`, which ask.

use std::collections::HashMap;
use std::time::Duration;

use super::database::{Purpose, Watch, number};
use super::table::name_parts;
use super::{Error, Outbox, SignalTable, Source};

/// Time limit of a poll.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many rows of a signal type are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideCounts {
    /// Signals waiting for their next attempt.
    pub deferred: u64,
    /// Dead letters.
    pub dead: u64,
    /// Rows that were sent, and that the database does not let go.
    pub undeleted: u64,
}

/// Rows of a signal type that were sent, and that the database does not let go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Undeleted {
    #[serde(rename = "type")]
    pub signal: String,
    pub count: u64,
    /// Why one of them is not deleted, in the database's words.
    pub reason: String,
}

impl Outbox {
    /// Returns which of these signal types have something to claim, a hundred types in one query. Each is looked through
    /// from its start (`true`), or from where its last claim ended (`false`); not at all (`None`) while a claim is being taken.
    ///
    /// # Errors
    /// The database's error. One missing table fails the whole query.
    pub async fn look(&self, views: &[(&SignalTable, bool)]) -> Result<Vec<Option<bool>>, Error> {
        // SQLite bounds the number of parts of a query.
        const TYPES: usize = 100;
        let late = |_| Error::Unreachable(format!("no answer within {PATIENCE:?}"));
        let mut due = Vec::with_capacity(views.len());
        for views in views.chunks(TYPES) {
            due.extend(tokio::time::timeout(PATIENCE, self.look_at(views)).await.map_err(late)??);
        }
        Ok(due)
    }

    async fn look_at(&self, views: &[(&SignalTable, bool)]) -> Result<Vec<Option<bool>>, Error> {
        let mut sql = self.statement("", &[]);
        for (n, (lane, thorough)) in views.iter().enumerate() {
            let Some(after) = lane.look_from(*thorough) else { continue };
            sql.push(&format!("SELECT {n}, CASE WHEN "));
            lane.due(&mut sql, after.as_deref());
            sql.push(" THEN 1 ELSE 0 END UNION ALL ");
        }
        let read_only = self.database.dialect().reads_only();
        sql.push(&format!("SELECT {}, CASE WHEN {read_only} THEN 1 ELSE 0 END", views.len()));
        let mut session = self.database.session(None);
        session.begin(Purpose::Read).await?;
        let rows = session.rows(sql).await?;
        session.commit().await?;
        let mut due = vec![None; views.len() + 1];
        for row in rows {
            due[number::<usize>(&row[0])] = Some(number::<u8>(&row[1]) == 1);
        }
        if due.pop() == Some(Some(true)) {
            session.abandon();
            return Err(Error::Unreachable("the server is read-only".into()));
        }
        Ok(due)
    }

    /// Returns how many rows are held, by signal type.
    ///
    /// # Errors
    /// The database's error.
    pub async fn side_counts(&self) -> Result<HashMap<String, SideCounts>, Error> {
        let text = "SELECT CASE state WHEN 'retry' THEN 0 WHEN 'dead' THEN 1 ELSE 2 END, signal_type, count(*) FROM signalbus_hold \
             GROUP BY signal_type, state";
        let mut side_counts: HashMap<String, SideCounts> = HashMap::new();
        for row in self.read(self.statement(text, &[])).await? {
            let of = side_counts.entry(row[1].clone().unwrap_or_default()).or_default();
            match number::<u8>(&row[0]) {
                0 => of.deferred = number(&row[2]),
                1 => of.dead = number(&row[2]),
                _ => of.undeleted = number(&row[2]),
            }
        }
        Ok(side_counts)
    }

    /// Returns why rows that were sent are not deleted: for each signal type one reason, and how many rows there are.
    ///
    /// # Errors
    /// The database's error.
    pub async fn undeleted(&self) -> Result<Vec<Undeleted>, Error> {
        let text = "SELECT signal_type, count(*), max(reason) FROM signalbus_hold WHERE state = 'sent' GROUP BY signal_type \
             ORDER BY signal_type";
        let rows = self.read(self.statement(text, &[])).await.map_err(super::schema::missing)?;
        let undeleted = |row: Vec<super::database::Cell>| {
            let count = number(&row[1]);
            let [signal, _, reason] = <[_; 3]>::try_from(row).unwrap_or_default().map(Option::unwrap_or_default);
            Undeleted { signal, count, reason }
        };
        Ok(rows.into_iter().map(undeleted).collect())
    }

    /// Starts listening for commits. Returns `None` if the database does not support it, or if it has not
    /// been set up.
    ///
    /// # Errors
    /// Notifications were set up, but do not work.
    pub async fn watch(&self) -> Result<Option<Box<dyn Watch>>, Error> {
        self.database.watch().await
    }

    /// Returns the statements that make the database announce signals of these types; `None` if it does
    /// not support that.
    pub fn announcing(&self, sources: &[Source]) -> Option<Vec<String>> {
        let tables = sources.iter().map(|source| (name_parts(&source.table), source.signal.as_str()));
        self.database.announcing(&tables.collect::<Vec<_>>())
    }

    /// Runs statements in one transaction.
    ///
    /// # Errors
    /// The database's error; nothing was changed.
    pub async fn run(&self, statements: &[String]) -> Result<(), Error> {
        let mut session = self.database.session(None);
        session.begin(Purpose::Write).await?;
        for text in statements {
            session.execute(self.statement(text, &[])).await?;
        }
        session.commit().await
    }

    /// Returns the number of connections in use, and their maximum number.
    pub fn connections(&self) -> (usize, usize) {
        self.database.usage()
    }
}

impl SignalTable {
    /// Returns where to look from: where the last claim ended, or the start, unless there is too much in the way.
    #[expect(clippy::option_option, reason = "`None`: a claim is being taken")]
    fn look_from(&self, thorough: bool) -> Option<Option<String>> {
        let scan = self.scan.try_lock().ok()?;
        let start = self.table.ordered() || thorough && scan.rescans.may_begin();
        Some(if start { None } else { scan.position.clone() })
    }
}
