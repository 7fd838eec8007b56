//! Random schedules: workers claim, settle, defer, dead-letter, release and crash while rows are added and changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use signalbus::outbox::{Batch, Claimed, Settled};
use signalbus::settlement::Settlement;
use signalbus::signal::Value;

use crate::harness::database::Database;
use crate::harness::lane::{Relay, buried, deferred, ordered, orders};

/// Number of schedules per database.
const SEEDS: u64 = 20;
const WORKERS: usize = 4;
const STEPS: usize = 60;

/// What became of every row, recorded independently of the database.
#[derive(Default)]
struct Ledger {
    inserted: HashSet<i64>,
    handed_out: HashSet<i64>,
    deleted: HashSet<i64>,
    buried: HashSet<i64>,
    /// Attempts charged to each row.
    charged: BTreeMap<i64, u32>,
    /// The version of each row, which is its payload.
    versions: BTreeMap<i64, u32>,
    /// The id of each version that was handed out, and the reverse.
    ids: HashMap<(i64, String), String>,
    known: HashMap<String, (i64, String)>,
}

fn key(batch: &Batch, index: usize) -> i64 {
    batch.signals[index].key.parse().unwrap()
}

/// The version that was read.
fn version(batch: &Batch, index: usize) -> String {
    match &batch.signals[index].values[2] {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Decides at random within the rules: if `strict`, nothing overtakes a signal that stays.
fn decide(batch: &Batch, random: &mut fastrand::Rng, strict: bool) -> Settlement {
    let mut settlement = Settlement::default();
    let mut held = HashSet::new();
    for (index, signal) in batch.signals.iter().enumerate() {
        if strict && held.contains(&signal.order_key) {
            continue;
        }
        match random.u32(0..10) {
            0 => {
                held.insert(signal.order_key.clone());
            }
            1 | 2 => {
                held.insert(signal.order_key.clone());
                settlement.defer.push(deferred(batch, index, Duration::from_secs(random.u64(0..2) * 3600)));
            }
            3 => settlement.bury.push(buried(batch, index)),
            _ => settlement.delete.push(index),
        }
    }
    settlement
}

impl Ledger {
    async fn insert(&mut self, database: &Database, random: &mut fastrand::Rng) {
        let new: Vec<i64> = (0..random.usize(1..8)).map(|_| random.i64(-1000..100_000)).collect();
        let new: HashSet<i64> = new.into_iter().filter(|id| !self.inserted.contains(id)).collect();
        let rows: Vec<String> = new.iter().map(|id| format!("({id}, 'customer {}', '0')", id.rem_euclid(5))).collect();
        if !rows.is_empty() {
            database.run(&format!("INSERT INTO order_placed VALUES {}", rows.join(", "))).await;
        }
        self.versions.extend(new.iter().map(|id| (*id, 0)));
        self.inserted.extend(new);
    }

    /// The application changes a row, whatever becomes of it at the time.
    async fn change(&mut self, database: &Database, random: &mut fastrand::Rng) {
        let standing: Vec<i64> = self.inserted.difference(&self.deleted).copied().collect();
        if standing.is_empty() {
            return;
        }
        let mut standing = standing;
        standing.sort_unstable();
        let id = standing[random.usize(0..standing.len())];
        let version = self.versions.get_mut(&id).unwrap();
        *version += 1;
        database.run(&format!("UPDATE order_placed SET payload = '{version}' WHERE id = {id}")).await;
        self.charged.remove(&id);
        self.buried.remove(&id);
    }

    /// Whether a signal still is the row that was read.
    fn stands(&self, batch: &Batch, index: usize) -> bool {
        version(batch, index) == self.versions[&key(batch, index)].to_string()
    }

    /// Records a claim: its rows must be neither in another live claim nor settled.
    fn claimed(&mut self, batch: &Batch, live: &[Option<Batch>]) {
        for (index, signal) in batch.signals.iter().enumerate() {
            let id = key(batch, index);
            assert!(!self.deleted.contains(&id) && !self.buried.contains(&id), "{id} was already settled");
            assert_eq!(signal.attempt, self.charged.get(&id).unwrap_or(&0) + 1, "attempts of {id}");
            assert!(self.stands(batch, index), "{id} is not what it is now: {batch:?}");
            let version = (id, version(batch, index));
            // What an ordered type held back was not sent.
            let first = self.ids.entry(version.clone()).or_insert_with(|| signal.id.clone());
            assert!(!signal.order_key.is_empty() || first == &signal.id, "{version:?}: {first}, {}", signal.id);
            assert_eq!(self.known.entry(signal.id.clone()).or_insert_with(|| version.clone()), &version);
            for other in live.iter().flatten() {
                assert!((0..other.signals.len()).all(|n| key(other, n) != id), "{id} is claimed twice");
                let shared = other.signals.iter().any(|theirs| theirs.order_key == signal.order_key);
                assert!(signal.order_key.is_empty() || !shared, "order key \"{}\" is claimed twice", signal.order_key);
            }
            self.handed_out.insert(id);
        }
    }

    fn settled(&mut self, batch: &Batch, settlement: &Settlement) {
        let standing: Vec<bool> = (0..batch.signals.len()).map(|index| self.stands(batch, index)).collect();
        for &index in settlement.delete.iter().filter(|&&index| standing[index]) {
            assert!(self.deleted.insert(key(batch, index)), "deleted twice");
        }
        for burial in settlement.bury.iter().filter(|burial| standing[burial.index]) {
            assert!(self.buried.insert(key(batch, burial.index)), "buried twice");
        }
        for deferral in settlement.defer.iter().filter(|deferral| standing[deferral.index]) {
            self.charged.insert(key(batch, deferral.index), deferral.attempts);
        }
    }
}

/// Runs one schedule; the seed alone determines the order of the steps.
async fn schedule(database: &Database, seed: u64, strict: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let source = if strict { ordered("order_placed", &["id"], &["customer"]) } else { orders() };
    let relays = [Relay::open(database, &source).await, Relay::open(database, &source).await];
    let mut workers: Vec<_> = (0..WORKERS).map(|n| relays[n % 2].worker()).collect();
    let mut live: Vec<Option<Batch>> = (0..WORKERS).map(|_| None).collect();
    let mut lost: Vec<Batch> = Vec::new();
    let mut ledger = Ledger::default();
    for _ in 0..STEPS {
        let n = random.usize(0..WORKERS);
        match (random.u32(0..12), live[n].take()) {
            (0..=2, batch) => {
                live[n] = batch;
                ledger.insert(database, &mut random).await;
                ledger.change(database, &mut random).await;
            }
            (3, Some(batch)) => lost.push(batch), // its worker died
            (4, batch) => {
                // All live claims expire: from the next claim on, their settles are fenced.
                live[n] = batch;
                lost.extend(live.iter_mut().filter_map(Option::take));
                database.expire().await;
                for relay in &relays {
                    relay.lane.rescan().await;
                }
            }
            (5, batch) => {
                live[n] = batch;
                database.make_due().await;
            }
            (_, Some(batch)) => {
                let settlement = decide(&batch, &mut random, strict);
                assert_ne!(workers[n].settle(&batch, &settlement).await.unwrap(), Settled::Fenced);
                ledger.settled(&batch, &settlement);
            }
            (_, None) => {
                if let Claimed::Batch(batch) = workers[n].claim(random.usize(1..12), None).await.unwrap() {
                    ledger.claimed(&batch, &live);
                    live[n] = Some(batch);
                }
                // A late owner settles, which succeeds only if its rows were not taken over.
                if !lost.is_empty() && random.bool() {
                    let late = lost.swap_remove(random.usize(0..lost.len()));
                    let settlement = decide(&late, &mut random, strict);
                    if workers[n].settle(&late, &settlement).await.unwrap() != Settled::Fenced {
                        ledger.settled(&late, &settlement);
                    }
                }
            }
        }
    }
    drop(live);
    relays[0].lane.sweep(0, 1000).await.unwrap();
    finish(database, &mut workers[0], &mut ledger).await;
}

/// Sends the remaining rows, and checks that every row is accounted for exactly once.
async fn finish(database: &Database, worker: &mut signalbus::outbox::Worker<'_>, ledger: &mut Ledger) {
    database.make_due().await;
    loop {
        // A claim of which a batch was lost may have been renewed.
        database.expire().await;
        let Claimed::Batch(batch) = worker.claim(50, None).await.unwrap() else { break };
        ledger.claimed(&batch, &[]);
        let settlement = crate::harness::lane::sent(&batch);
        let count = crate::harness::lane::settle(worker, &batch, &settlement).await;
        assert_eq!(count, batch.signals.len() as u64);
        ledger.settled(&batch, &settlement);
    }
    assert_eq!(database.count("order_placed").await, i64::try_from(ledger.buried.len()).unwrap(), "rows are left");
    assert_eq!(database.count("signalbus_claim").await, 0);
    assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 0);
    let outcomes: HashSet<i64> = ledger.deleted.union(&ledger.buried).copied().collect();
    assert_eq!(outcomes.len(), ledger.deleted.len() + ledger.buried.len());
    assert_eq!(outcomes.symmetric_difference(&ledger.inserted).collect::<Vec<_>>(), Vec::<&i64>::new());
    assert_eq!(outcomes, ledger.handed_out);
    assert_eq!(database.count("signalbus_hold WHERE state = 'dead'").await, i64::try_from(ledger.buried.len()).unwrap());
    database.run("DELETE FROM signalbus_hold; DELETE FROM order_placed").await;
}

mod cases {
    use super::*;

    pub async fn every_row_is_accounted_for(database: Database) {
        database.orders(0).await;
        for seed in 0..SEEDS {
            schedule(&database, seed, false).await;
        }
    }

    pub async fn every_row_is_accounted_for_in_order(database: Database) {
        database.orders(0).await;
        for seed in 0..SEEDS {
            schedule(&database, 1000 + seed, true).await;
        }
    }
}

crate::on_each_database!(every_row_is_accounted_for, every_row_is_accounted_for_in_order);
