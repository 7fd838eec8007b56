//! What surrounds the workers: an application that writes rows, obstacles to their deletion, backups, and another relay
//! that comes in between.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use signalbus::outbox::{Batch, Claimed, Outbox, Settled};
use signalbus::settlement::Settlement;
use signalbus::signal::Value;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::ledger::{Checked, HandedOut, Hold, Ledger};
use crate::harness::database::{Database, System};
use crate::harness::lane::{Relay, buried, deferred};

/// Keys are few, so that they come back.
const KEYS: i64 = 24;
/// What a trigger writes into rows that it keeps.
const MARK: &str = "marked";
/// Everything that a backup holds.
const TABLES: [&str; 5] = ["line", "obstacle", "order_placed", "signalbus_claim", "signalbus_hold"];

/// What may keep rows from being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    None,
    ForeignKey,
    /// It refuses, ignores or marks.
    Trigger,
}

/// A connection of the application.
enum Connection {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
    Mariadb(sqlx::MySqlConnection),
}

macro_rules! on {
    ($connection:expr, $one:ident => $work:expr) => {
        match $connection {
            Connection::Sqlite($one) => $work,
            Connection::Postgres($one) => $work,
            Connection::Mariadb($one) => $work,
        }
    };
}

pub struct World {
    system: System,
    connection: Connection,
    outbox: Outbox,
    /// A relay that acts in between.
    pub rival: Option<Relay>,
    pub ledger: Ledger,
    pub random: fastrand::Rng,
    obstacle: Obstacle,
    strict: bool,
    /// The ledger of the backup, and whether there are claims or holds in it.
    backup: Option<(Ledger, bool)>,
    /// Nobody comes in between.
    pub quiet: bool,
    /// No content comes back: it could not be told which of two equal rows is read.
    unique: bool,
    contents: u32,
    batches: usize,
    pub found: Checked,
    /// What has happened.
    pub trace: Vec<String>,
}

impl World {
    pub async fn new(database: &Database, seed: u64, obstacle: Obstacle, strict: bool) -> Self {
        let connection = match database.system {
            System::Sqlite => Connection::Sqlite(database.sqlite_connection().await),
            System::Postgres => Connection::Postgres(database.postgres_connection().await),
            System::Mariadb => Connection::Mariadb(database.mariadb_connection().await),
        };
        let mut world = Self {
            system: database.system,
            connection,
            outbox: Outbox::open(&database.url, 1).unwrap(),
            rival: None,
            ledger: Ledger::new(database.system == System::Postgres, strict),
            random: fastrand::Rng::with_seed(seed),
            obstacle,
            strict,
            backup: None,
            quiet: false,
            unique: false,
            contents: 0,
            batches: 0,
            found: Ok(()),
            trace: Vec::new(),
        };
        if database.system == System::Postgres {
            world.run("SET synchronous_commit = off").await;
        }
        world.run(&TABLES.map(|table| format!("DELETE FROM {table}")).join("; ")).await;
        world
    }

    /// The tables that the schedules use, and what may keep rows from being deleted.
    pub async fn prepare(database: &Database, obstacle: Obstacle) {
        database.orders(0).await;
        let integer = database.either("INTEGER", "bigint", "BIGINT");
        let refers = if obstacle == Obstacle::ForeignKey { ", FOREIGN KEY (order_id) REFERENCES order_placed (id)" } else { "" };
        database.run(&format!("CREATE TABLE line (order_id {integer}{refers})")).await;
        database.run(&format!("CREATE TABLE obstacle (id {integer} PRIMARY KEY, kind INTEGER)")).await;
        if obstacle == Obstacle::Trigger {
            database.run(trigger(database)).await;
        }
        for table in TABLES {
            database.run(&format!("CREATE TABLE backup_{table} AS SELECT * FROM {table} WHERE 1 = 0")).await;
        }
    }

    async fn run(&mut self, sql: &str) {
        self.trace.push(sql.to_owned());
        let statements = AssertSqlSafe(sql.to_owned());
        let done = on!(&mut self.connection, one => one.execute(statements).await.map(drop));
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn numbered(&mut self, sql: &str) -> BTreeMap<i64, String> {
        let query = AssertSqlSafe(sql.to_owned());
        let rows = on!(&mut self.connection, one => {
            let rows = one.fetch_all(query).await;
            rows.map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        });
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn count(&mut self, table: &str) -> i64 {
        self.numbered(&format!("SELECT count(*), '' FROM {table}")).await.into_keys().sum()
    }

    /// Looks at the table.
    pub async fn observe(&mut self) -> Checked {
        let rows = self.numbered("SELECT id, payload FROM order_placed").await;
        self.ledger.observe(&rows, MARK)
    }

    fn some_key(&mut self) -> Option<i64> {
        let keys = self.ledger.keys();
        self.random.choice(keys)
    }

    /// Content for a row: new, or what its last namesake had.
    fn content(&mut self, key: i64) -> String {
        let again = !self.unique && self.random.bool();
        let last = self.ledger.last_content(key).filter(|_| again).map(str::to_owned);
        self.contents += 1;
        last.unwrap_or_else(|| self.contents.to_string())
    }

    /// The application does something.
    pub async fn act(&mut self) -> Checked {
        self.observe().await?;
        match self.random.u32(0..10) {
            0..=3 => self.insert().await,
            4 => self.change().await,
            5 => self.delete().await,
            6 => self.replace().await,
            7 => self.upsert().await,
            _ => self.obstruct().await,
        }
        Ok(())
    }

    async fn wrote(&mut self, rows: &[(i64, String)]) {
        let claimed = self.count("signalbus_claim").await > 0;
        rows.iter().for_each(|(key, content)| self.ledger.written(*key, content, claimed));
    }

    async fn insert(&mut self) {
        let keys: BTreeSet<i64> = (0..self.random.usize(1..8)).map(|_| self.random.i64(0..KEYS)).collect();
        let free = keys.into_iter().filter(|&key| !self.ledger.stands(key)).collect::<Vec<_>>();
        let rows: Vec<(i64, String)> = free.into_iter().map(|key| (key, self.content(key))).collect();
        if !rows.is_empty() {
            self.run(&format!("INSERT INTO order_placed VALUES {}", listed(&rows))).await;
            self.wrote(&rows).await;
        }
    }

    /// There is a row with every key.
    pub async fn fill(&mut self) {
        let rows: Vec<(i64, String)> = (0..KEYS).map(|key| (key, self.content(key))).collect();
        self.run(&format!("INSERT INTO order_placed VALUES {}", listed(&rows))).await;
        self.wrote(&rows).await;
    }

    async fn change(&mut self) {
        let Some(key) = self.some_key() else { return };
        self.contents += 1;
        let content = self.contents.to_string();
        self.run(&format!("UPDATE order_placed SET payload = '{content}' WHERE id = {key}")).await;
        self.wrote(&[(key, content)]).await;
    }

    async fn delete(&mut self) {
        let Some(key) = self.some_key() else { return };
        self.run(&format!("BEGIN; {}; COMMIT", removal(key))).await;
        self.ledger.removed(key);
    }

    /// Another row takes the place of one, maybe an equal one.
    async fn replace(&mut self) {
        let Some(key) = self.some_key() else { return };
        let content = self.content(key);
        self.run(&format!("BEGIN; {}; INSERT INTO order_placed VALUES {}; COMMIT", removal(key), row(key, &content))).await;
        self.wrote(&[(key, content)]).await;
    }

    async fn upsert(&mut self) {
        let key = self.random.i64(0..KEYS);
        let content = self.content(key);
        let before = self.ledger.content(key) == Some(&content);
        let clash = match self.system {
            System::Mariadb => "ON DUPLICATE KEY UPDATE payload = values(payload)",
            _ => "ON CONFLICT (id) DO UPDATE SET payload = excluded.payload",
        };
        self.run(&format!("INSERT INTO order_placed VALUES {} {clash}", row(key, &content))).await;
        // Where content tells versions apart, nothing has changed.
        if self.ledger.numbered || !before {
            self.wrote(&[(key, content)]).await;
        }
    }

    /// Something stands in the way of a deletion, or does not any more.
    async fn obstruct(&mut self) {
        let Some(key) = self.some_key() else { return };
        if self.obstacle == Obstacle::None || self.random.bool() {
            return self.run("DELETE FROM obstacle; DELETE FROM line").await;
        }
        match self.obstacle {
            Obstacle::ForeignKey => self.run(&format!("INSERT INTO line VALUES ({key})")).await,
            _ => {
                let kind = self.random.u32(0..3);
                self.run(&format!("DELETE FROM obstacle WHERE id = {key}; INSERT INTO obstacle VALUES ({key}, {kind})")).await;
            }
        }
    }

    pub async fn clear_obstacles(&mut self) {
        self.run("DELETE FROM obstacle; DELETE FROM line").await;
    }

    pub async fn expire(&mut self) {
        self.run("UPDATE signalbus_claim SET expires_at = 0").await;
        self.ledger.expired();
    }

    /// Everything that waits for its time is due.
    pub async fn make_due(&mut self, states: &str) {
        self.run(&format!("UPDATE signalbus_hold SET due_at = 0 WHERE state IN ({states})")).await;
    }

    pub async fn back_up(&mut self) -> Checked {
        self.observe().await?;
        let copy: Vec<String> = TABLES
            .iter()
            .map(|table| format!("DELETE FROM backup_{table}; INSERT INTO backup_{table} SELECT * FROM {table}"))
            .collect();
        self.run(&format!("BEGIN; {}; COMMIT", copy.join("; "))).await;
        let recorded = self.count("signalbus_claim").await + self.count("signalbus_hold").await > 0;
        self.backup = Some((self.ledger.clone(), recorded));
        Ok(())
    }

    /// Returns whether there was a backup. No relay runs meanwhile, and every one starts anew.
    pub async fn restore(&mut self) -> bool {
        let Some((backup, recorded)) = self.backup.clone() else { return false };
        let delete = TABLES.map(|table| format!("DELETE FROM {table}"));
        let numbers = if self.system == System::Postgres { "OVERRIDING SYSTEM VALUE " } else { "" };
        let mut put = TABLES.map(|table| format!("INSERT INTO {table} {numbers}SELECT * FROM backup_{table}"));
        put.reverse();
        self.run(&format!("BEGIN; {}; {}; COMMIT", delete.join("; "), put.join("; "))).await;
        self.ledger.restore(&backup, recorded);
        true
    }

    /// Dead letters are redriven or discarded.
    pub async fn treat_dead(&mut self) -> Checked {
        self.observe().await?;
        let letters = self.outbox.dead_letters(&[], 3).await.unwrap();
        let keys: Vec<i64> = letters.iter().map(|letter| letter.key.parse().unwrap()).collect();
        let redrive = self.random.bool();
        if redrive {
            let numbers: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
            self.outbox.redrive(&numbers).await.unwrap();
            self.ledger.no_more_dead(&keys, true);
            return Ok(());
        }
        let Some(rival) = &self.rival else { return Ok(()) };
        self.ledger.discards(&keys);
        // It may be refused.
        let discarded = rival.lane.discard(&letters).await.is_ok();
        let seen = self.observe().await;
        self.ledger.discards(&[]);
        if discarded {
            self.ledger.no_more_dead(&keys, false);
        }
        seen
    }

    pub async fn redrive_all(&mut self) {
        self.outbox.redrive_selected(&signalbus::outbox::Selection::default()).await.unwrap();
        let all: Vec<i64> = (0..KEYS).collect();
        self.ledger.no_more_dead(&all, true);
    }

    /// Comes between two transactions of a worker.
    pub fn interrupt(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.quiet || self.found.is_err() || self.random.u32(0..6) > 0 {
                return;
            }
            let unique = self.unique;
            self.unique |= self.ledger.numbered;
            let found = if self.random.u32(0..4) == 0 { self.compete().await } else { self.act().await };
            self.unique = unique;
            self.found = found;
        })
    }

    /// Another relay sends a batch.
    async fn compete(&mut self) -> Checked {
        self.observe().await?;
        let Some(rival) = self.rival.take() else { return Ok(()) };
        let done = self.send_all_of(&rival).await;
        self.rival = Some(rival);
        done
    }

    async fn send_all_of(&mut self, rival: &Relay) -> Checked {
        if self.random.bool() {
            rival.lane.sweep(0, 1000).await.unwrap();
        }
        let mut worker = rival.worker();
        let limit = self.random.usize(1..6);
        let interrupted = self.ledger.claims();
        let claimed = worker.claim(limit, None).await.unwrap();
        self.observe().await?;
        if let Claimed::Batch(batch) = claimed {
            let flight = self.claimed(&batch)?;
            let settlement = self.send(&batch, flight)?;
            self.settles(flight, &settlement);
            let settled = worker.settle(&batch, &settlement).await.unwrap();
            self.settled(flight, &settlement, &settled).await?;
        }
        worker.close().await.unwrap();
        self.ledger.claims_on(interrupted);
        Ok(())
    }

    /// A worker begins to claim.
    pub fn claims(&mut self) {
        self.ledger.claims();
        self.unique = true;
    }

    /// A worker has claimed a batch. Returns its number.
    pub fn claimed(&mut self, batch: &Batch) -> Checked<usize> {
        self.unique = false;
        let signals = (0..batch.signals.len()).map(|index| handed_out(batch, index)).collect::<Vec<_>>();
        self.batches += 1;
        let told: Vec<String> =
            batch.signals.iter().zip(&signals).map(|(signal, read)| format!("{} {:?}", signal.id, read.content)).collect();
        self.trace.push(format!("batch {} is {}", self.batches, told.join(", ")));
        self.ledger.claimed(self.batches, &signals)?;
        Ok(self.batches)
    }

    pub fn claimed_nothing(&mut self) {
        self.unique = false;
    }

    /// Sends a batch; what its plugin answers is left to chance. Where order is promised, nothing overtakes a signal that
    /// stays.
    pub fn send(&mut self, batch: &Batch, flight: usize) -> Checked<Settlement> {
        let outage = self.random.u32(0..8) == 0;
        let mut settlement = Settlement::default();
        let mut held = BTreeSet::new();
        for (index, signal) in batch.signals.iter().enumerate() {
            if self.strict && held.contains(&signal.order_key) {
                continue;
            }
            let version = self.ledger.flight(flight).versions[index];
            self.ledger.sent(version, &signal.id)?;
            match self.random.u32(0..10) {
                _ if outage => drop(held.insert(signal.order_key.clone())),
                0 => drop(held.insert(signal.order_key.clone())),
                1 | 2 => {
                    held.insert(signal.order_key.clone());
                    let delay = std::time::Duration::from_secs(self.random.u64(0..2) * 3600);
                    settlement.defer.push(deferred(batch, index, delay));
                }
                3 => settlement.bury.push(buried(batch, index)),
                _ => settlement.delete.push(index),
            }
        }
        self.trace.push(format!("batch {flight} is sent: {settlement:?}"));
        Ok(settlement)
    }

    /// A settle begins.
    pub fn settles(&mut self, flight: usize, settlement: &Settlement) {
        let versions = self.ledger.flight(flight).versions.clone();
        settlement.delete.iter().for_each(|&index| self.ledger.answered(versions[index]));
        self.ledger.yields(flight);
    }

    /// A settle is over.
    pub async fn settled(&mut self, flight: usize, settlement: &Settlement, settled: &Settled) -> Checked {
        self.trace.push(format!("batch {flight} is settled: {settled:?}"));
        self.observe().await?;
        if *settled == Settled::Fenced {
            self.ledger.lost(flight);
            return Ok(());
        }
        let mut holds = vec![None; self.ledger.flight(flight).versions.len()];
        settlement.delete.iter().for_each(|&index| holds[index] = Some(Hold::Sent));
        settlement.bury.iter().for_each(|burial| holds[burial.index] = Some(Hold::Dead));
        settlement.defer.iter().for_each(|deferral| holds[deferral.index] = Some(Hold::Retry(deferral.attempts)));
        self.ledger.settled(flight, &holds);
        Ok(())
    }
}

fn handed_out(batch: &Batch, index: usize) -> HandedOut {
    let signal = &batch.signals[index];
    let content = match &signal.values[2] {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    HandedOut { key: signal.key.parse().unwrap(), content, attempt: signal.attempt, order_key: signal.order_key.clone() }
}

fn listed(rows: &[(i64, String)]) -> String {
    let rows: Vec<String> = rows.iter().map(|(key, content)| row(*key, content)).collect();
    rows.join(", ")
}

fn row(key: i64, content: &str) -> String {
    format!("({key}, 'customer {}', '{content}')", key % 5)
}

/// What deletes a row, whatever keeps it.
fn removal(key: i64) -> String {
    format!(
        "DELETE FROM obstacle WHERE id = {key}; DELETE FROM line WHERE order_id = {key}; DELETE FROM order_placed WHERE id = {key}"
    )
}

/// Keeps the rows that `obstacle` names: 0 with an error, 1 silently, 2 with a mark. (MariaDB knows only the first.)
fn trigger(database: &Database) -> &str {
    database.either(
        "CREATE TRIGGER keep BEFORE DELETE ON order_placed WHEN EXISTS (SELECT 1 FROM obstacle WHERE id = old.id) BEGIN \
         SELECT CASE kind WHEN 0 THEN RAISE(ABORT, 'not this one') WHEN 1 THEN RAISE(IGNORE) END FROM obstacle WHERE id = old.id; \
         UPDATE order_placed SET payload = 'marked' WHERE id = old.id; SELECT RAISE(IGNORE); END",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$DECLARE found integer; BEGIN \
         SELECT kind INTO found FROM obstacle WHERE id = old.id; IF found IS NULL THEN RETURN old; END IF; \
         IF found = 0 THEN RAISE 'not this one'; END IF; \
         IF found = 2 THEN UPDATE order_placed SET payload = 'marked' WHERE id = old.id; END IF; RETURN NULL; END$$; \
         CREATE TRIGGER keep BEFORE DELETE ON order_placed FOR EACH ROW EXECUTE FUNCTION keep()",
        "CREATE TRIGGER keep BEFORE DELETE ON order_placed FOR EACH ROW IF EXISTS (SELECT 1 FROM obstacle WHERE id = old.id) THEN \
         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF",
    )
}
