//! The side tables of version 1, which moved a dead letter out of its table, value by value: puts it back, and holds it.
//!
//! A letter goes back as it was, to the byte, or stays in `signalbus_dead_letter`, with a reason: both tables of letters
//! stay until they are empty. Each transaction takes letters away as it puts them back, so that one that is cut short
//! loses nothing and doubles nothing. Next: `restorer`, which puts letters back; `deferrals`, what else waits.

mod deferrals;
mod restorer;

use super::database::{Cell, number};
use super::table::Table;
use super::{Error, Outbox, SignalTable, Source};
use restorer::Restorer;

/// How many letters go back in one transaction, and about how many bytes of them.
const PAGE: usize = 500;
const PAGE_BYTES: u64 = 16 << 20;

/// What an upgrade has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// How many dead letters are back in their tables.
    pub restored: u64,
    /// How many signals wait for their next attempt, as they did.
    pub deferred: u64,
    /// Dead letters that could not be put back.
    pub left: Vec<LeftLetters>,
}

/// Dead letters of one signal type that stay in `signalbus_dead_letter` for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftLetters {
    pub signal: String,
    pub count: u64,
    /// The number of the first one.
    pub first: i64,
    /// Why it cannot be put back.
    pub reason: String,
}

impl Outbox {
    /// Puts side tables of this version into the place of those of version 1. Those of its letters and deferrals stay,
    /// for [`upgrade`](Self::upgrade).
    pub(super) async fn replace_version_1(&self) -> Result<(), Error> {
        // (Where every DROP commits by itself, this may be the second try.)
        if self.exists("signalbus_claim").await? {
            let text = format!("SELECT count(*) FROM signalbus_claim WHERE expires_at > {}", self.database.dialect().now());
            let claims = self.read(self.statement(&text, &[])).await?;
            if claims.first().is_some_and(|row| number::<u64>(&row[0]) > 0) {
                return Err(Error::Table("a relay of an earlier release is running; stop it, then migrate".into()));
            }
        }
        // The version goes last: until then, all of this is to be done.
        let drops = ["lane", "claim", "schema"].map(|table| format!("DROP TABLE IF EXISTS signalbus_{table}"));
        self.run_script(&format!("{}; {}", drops.join("; "), self.migration())).await
    }

    /// Puts the dead letters of version 1 back into their tables, as held rows, and its deferrals into holds: those of
    /// these signal types. What cannot be put back stays, and is tried again the next time.
    ///
    /// # Errors
    /// The database's error; what has been put back stays so.
    pub async fn upgrade(&self, sources: &[Source]) -> Result<Upgrade, Error> {
        let mut upgrade = Upgrade::default();
        if self.exists("signalbus_deferral").await? {
            for source in sources {
                if let Ok(lane) = self.opened(source).await? {
                    upgrade.deferred += Restorer::new(&lane, Table::default()).defer().await?;
                }
            }
            self.run(&["DROP TABLE signalbus_deferral".into()]).await?;
        }
        if !self.exists("signalbus_dead_letter").await? {
            return Ok(upgrade);
        }
        for LeftLetters { signal, count, first, .. } in self.left_letters().await? {
            match self.restore(&signal, sources).await? {
                Ok((restored, left)) => {
                    upgrade.restored += restored;
                    upgrade.left.extend(left);
                }
                Err(reason) => upgrade.left.push(LeftLetters { signal, count, first, reason }),
            }
        }
        if self.left_letters().await?.is_empty() {
            // The letters go last: they tell whether there is anything to do.
            self.run(&["dead_value", "dead_letter"].map(|table| format!("DROP TABLE IF EXISTS signalbus_{table}"))).await?;
        }
        Ok(upgrade)
    }

    /// Returns the dead letters of version 1 that are not back in their tables, by signal type, without reasons.
    ///
    /// # Errors
    /// The database's error.
    pub async fn left_letters(&self) -> Result<Vec<LeftLetters>, Error> {
        if !self.exists("signalbus_dead_letter").await? {
            return Ok(Vec::new());
        }
        let text = "SELECT signal_type, count(*), min(id) FROM signalbus_dead_letter GROUP BY signal_type ORDER BY signal_type";
        let rows = self.read(self.statement(text, &[])).await?;
        let left = |row: Vec<Cell>| {
            let signal = row[0].clone().unwrap_or_default();
            LeftLetters { signal, count: number(&row[1]), first: number(&row[2]), reason: String::new() }
        };
        Ok(rows.into_iter().map(left).collect())
    }

    /// Puts the letters of one signal type back. Returns how many, and what is left; or why none could be.
    async fn restore(&self, signal: &str, sources: &[Source]) -> Result<Result<(u64, Vec<LeftLetters>), String>, Error> {
        let Some(source) = sources.iter().find(|source| source.signal == signal) else {
            return Ok(Err("their signal type is not configured".into()));
        };
        let lane = match self.opened(source).await? {
            Ok(lane) => lane,
            Err(reason) => return Ok(Err(reason)),
        };
        // (The lane may show a view.)
        let Some(described) = self.database.describe(&lane.table.name).await? else {
            return Err(Error::altered(&lane.table.name));
        };
        let (name, columns, key) = (lane.table.name.clone(), described.columns, described.key);
        let mut restorer = Restorer::new(&lane, Table { name, columns, key, ..Table::default() });
        restorer.restore().await?;
        Ok(Ok((restorer.restored, restorer.left.into_values().collect())))
    }

    /// The table of a signal type, or why it is unfit.
    async fn opened(&self, source: &Source) -> Result<Result<SignalTable, String>, Error> {
        match self.signal_table(source).await {
            Err(error) if !error.is_unreachable() => Ok(Err(error.to_string())),
            opened => opened.map(Ok),
        }
    }

    async fn exists(&self, table: &str) -> Result<bool, Error> {
        Ok(self.database.describe(&[table.to_owned()]).await?.is_some())
    }
}
