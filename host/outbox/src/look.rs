//! Looking, without claiming: which signal types have something due, and how much waits.

use std::collections::HashMap;
use std::time::Duration;

use super::database::{Purpose, Watch, number};
use super::{Error, Outbox, SignalTable, Source};

/// The longest that a look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What waits outside of the user's tables, by signal type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideCounts {
    /// Signals that wait for their next attempt.
    pub deferred: u64,
    pub dead: u64,
}

impl Outbox {
    /// Which of these signal types have something that can be claimed, in one query. A look is
    /// `thorough`, or starts where the type's last claim ended.
    ///
    /// # Errors
    /// The database's: one table that is missing makes the whole look fail.
    pub async fn look(&self, views: &[(&SignalTable, bool)]) -> Result<Vec<bool>, Error> {
        let mut sql = self.statement("", &[]);
        let mut afters = Vec::with_capacity(views.len());
        for (lane, thorough) in views {
            afters.push(if *thorough { None } else { lane.position() });
        }
        sql.list(" UNION ALL ", views.iter().zip(&afters).enumerate(), |sql, (n, ((lane, _), after))| {
            sql.push(&format!("SELECT {n}, CASE WHEN EXISTS ("));
            lane.due(sql, after.as_deref());
            sql.push(") THEN 1 ELSE 0 END");
        });
        let mut due = vec![false; views.len()];
        let looked = tokio::time::timeout(PATIENCE, self.read(sql)).await;
        for row in looked.map_err(|_| Error::Unreachable(format!("no answer within {PATIENCE:?}")))?? {
            due[number::<usize>(&row[0])] = number::<u8>(&row[1]) == 1;
        }
        Ok(due)
    }

    /// How many signals are deferred and dead, by signal type.
    ///
    /// # Errors
    /// The database's.
    pub async fn side_counts(&self) -> Result<HashMap<String, SideCounts>, Error> {
        let text = "SELECT 0, signal_type, count(*) FROM signalbus_deferral GROUP BY signal_type \
             UNION ALL SELECT 1, signal_type, count(*) FROM signalbus_dead_letter GROUP BY signal_type";
        let mut side_counts: HashMap<String, SideCounts> = HashMap::new();
        for row in self.read(self.statement(text, &[])).await? {
            let of = side_counts.entry(row[1].clone().unwrap_or_default()).or_default();
            match number::<u8>(&row[0]) {
                0 => of.deferred = number(&row[2]),
                _ => of.dead = number(&row[2]),
            }
        }
        Ok(side_counts)
    }

    /// Something that tells of commits as they happen; `None` where the database has nothing of
    /// the kind, or it was not set up.
    ///
    /// # Errors
    /// It was set up, and does not work: the sentence says why.
    pub async fn watch(&self) -> Result<Option<Box<dyn Watch>>, Error> {
        self.database.watch().await
    }

    /// The statements that make the database announce signals of these types; `None` where it
    /// can't.
    pub fn announcing(&self, sources: &[Source]) -> Option<Vec<String>> {
        let tables = sources.iter().map(|source| (super::name_parts(&source.table), source.signal.as_str()));
        self.database.announcing(&tables.collect::<Vec<_>>())
    }

    /// Runs statements in one transaction.
    ///
    /// # Errors
    /// The database's; nothing was changed then.
    pub async fn run(&self, statements: &[String]) -> Result<(), Error> {
        let mut session = self.database.session();
        session.begin(Purpose::Settle).await?;
        for text in statements {
            session.execute(self.statement(text, &[])).await?;
        }
        session.commit().await
    }

    /// How many connections are in use, of how many.
    pub fn connections(&self) -> (usize, usize) {
        self.database.usage()
    }
}

impl SignalTable {
    /// Where the last claim ended; `None` while one is being taken, too: that is no time to look.
    fn position(&self) -> Option<String> {
        self.scan.try_lock().ok()?.position.clone()
    }
}
