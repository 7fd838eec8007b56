//! Random schedules: workers claim, send, settle, freeze and die, claims expire and are taken over, while an application
//! writes, deletes and replaces rows, keeps some from being deleted, and restores backups. A ledger, which knows only the
//! guarantees, looks for whatever breaks one. To prove that it would find it, rules of the outbox are broken one by one.
//!
//! A seed decides what happens, as far as the clock does not: `SIGNALBUS_SEED=17` runs that schedule alone.

mod ledger;
mod world;

use std::sync::Arc;

use signalbus::outbox::trial::{Interruption, Rule, Trial};
use signalbus::outbox::{Batch, Claimed, Source, Worker};
use tokio::sync::Mutex;

use self::ledger::Checked;
use self::world::{Obstacle, World};
use crate::harness::database::Database;
use crate::harness::lane::{Relay, ordered, orders, sent};
use crate::harness::{amount, is_soak};

const STEPS: usize = 60;
/// How many batches are in flight at most.
const FLIGHTS: usize = 5;
const WORKERS: usize = 4;
/// No schedule leaves so many batches behind.
const MANY: usize = 500;

type Shared = Arc<Mutex<World>>;

/// A batch that a worker of a relay has. Nothing says when it goes on: it may be frozen.
struct Flight {
    number: usize,
    relay: usize,
    batch: Batch,
    settlement: Option<signalbus::settlement::Settlement>,
}

/// What a kind of schedule is about.
#[derive(Clone)]
struct Setting {
    source: Source,
    obstacle: Obstacle,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Many batches are in flight, few rows wait.
    Usual,
    /// Many rows wait at first, so that claims cover several batches.
    Backlog,
    /// The same, and every batch is seen through at once: hardly anything happens between its claim and its settle.
    Prompt,
}

impl Setting {
    fn unordered(obstacle: Obstacle) -> Self {
        Self { source: orders(), obstacle, manner: Manner::Usual }
    }

    fn ordered(obstacle: Obstacle, order_key: &[&str]) -> Self {
        Self { source: ordered("order_placed", &["id"], order_key), obstacle, manner: Manner::Usual }
    }

    fn with_backlog(manner: Manner) -> Self {
        Self { manner, ..Self::unordered(Obstacle::None) }
    }
}

/// Runs one schedule, with one rule broken or none.
async fn schedule(database: &Database, setting: &Setting, seed: u64, broken: Option<Rule>) -> Checked {
    let strict = !setting.source.order_by.is_empty();
    let world = Arc::new(Mutex::new(World::new(database, seed, setting.obstacle, strict).await));
    let interruption: Interruption = Arc::new({
        let world = world.clone();
        move || {
            let world = world.clone();
            // Whoever comes in between is not interrupted.
            Box::pin(async move {
                if let Ok(mut world) = world.try_lock() {
                    world.interrupt().await;
                }
            })
        }
    });
    let trial = Trial { broken, interruption: Some(interruption) };
    let done = trial.run(run(database, setting, &world)).await;
    let trace = std::mem::take(&mut world.lock().await.trace);
    done.map_err(|violation| format!("{violation}\n{}", trace.join("\n")))
}

async fn run(database: &Database, setting: &Setting, world: &Shared) -> Checked {
    let mut steps = STEPS;
    if setting.manner != Manner::Usual {
        world.lock().await.fill().await;
    }
    while steps > 0 {
        world.lock().await.rival = Some(Relay::open(database, &setting.source).await);
        steps = era(database, setting, world, steps).await?;
    }
    world.lock().await.rival = None;
    finish(&Relay::open(database, &setting.source).await, world).await
}

/// Two relays run, until a backup is restored or no steps are left. Returns how many are left.
async fn era(database: &Database, setting: &Setting, world: &Shared, steps: usize) -> Checked<usize> {
    let relays = [Relay::open(database, &setting.source).await, Relay::open(database, &setting.source).await];
    let mut workers: Vec<Worker<'_>> = (0..WORKERS).map(|n| relays[n % 2].worker()).collect();
    let mut flights: Vec<Flight> = Vec::new();
    for left in (0..steps).rev() {
        let choice = world.lock().await.random.u32(0..24);
        match choice {
            0..=5 => world.lock().await.act().await?,
            6 if !flights.is_empty() => crash(world, &mut flights).await,
            7 => expire(world, &relays).await,
            8 => world.lock().await.make_due("'retry', 'sent'").await,
            9 => drop(relays[0].lane.sweep(0, 1000).await.unwrap()),
            10 => world.lock().await.treat_dead().await?,
            11 => renew(world, &mut workers, &flights).await,
            12 => world.lock().await.back_up().await?,
            13 if world.lock().await.restore().await => return Ok(left),
            14.. if setting.manner == Manner::Prompt => see_through(world, &mut workers).await?,
            14..=18 if flights.len() < FLIGHTS => claim(world, &mut workers, &mut flights).await?,
            _ if !flights.is_empty() => {
                let chosen = some(world, &flights).await;
                go_on(world, &mut workers, &mut flights, chosen).await?;
            }
            _ => claim(world, &mut workers, &mut flights).await?,
        }
        let mut world = world.lock().await;
        std::mem::replace(&mut world.found, Ok(()))?;
        world.observe().await?;
    }
    let mut world = world.lock().await;
    flights.drain(..).for_each(|flight| world.ledger.lost(flight.number));
    Ok(0)
}

async fn some(world: &Shared, flights: &[Flight]) -> usize {
    world.lock().await.random.usize(0..flights.len())
}

async fn crash(world: &Shared, flights: &mut Vec<Flight>) {
    let lost = flights.swap_remove(some(world, flights).await);
    let mut world = world.lock().await;
    world.trace.push(format!("the worker of batch {} dies", lost.number));
    world.ledger.lost(lost.number);
}

/// All claims expire, as if everybody had been frozen for so long.
async fn expire(world: &Shared, relays: &[Relay]) {
    let mut world = world.lock().await;
    world.expire().await;
    for relay in relays.iter().chain(&world.rival) {
        relay.lane.rescan().await;
    }
}

async fn renew(world: &Shared, workers: &mut [Worker<'_>], flights: &[Flight]) {
    if !flights.is_empty() {
        let flight = &flights[some(world, flights).await];
        let stands = workers[flight.relay].renew(&flight.batch).await.unwrap();
        world.lock().await.trace.push(format!("batch {} is renewed: {stands}", flight.number));
    }
}

async fn claim(world: &Shared, workers: &mut [Worker<'_>], flights: &mut Vec<Flight>) -> Checked {
    let (worker, limit) = {
        let mut world = world.lock().await;
        world.claims();
        (world.random.usize(0..WORKERS), world.random.usize(1..6))
    };
    let claimed = workers[worker].claim(limit, None).await.unwrap();
    let mut world = world.lock().await;
    std::mem::replace(&mut world.found, Ok(()))?;
    world.observe().await?;
    match claimed {
        Claimed::Batch(batch) => {
            let number = world.claimed(&batch)?;
            flights.push(Flight { number, relay: worker % 2, batch, settlement: None });
        }
        Claimed::Nothing { .. } => world.claimed_nothing(),
    }
    Ok(())
}

/// A batch is claimed, sent and settled.
async fn see_through(world: &Shared, workers: &mut [Worker<'_>]) -> Checked {
    let mut flights = Vec::new();
    claim(world, workers, &mut flights).await?;
    while !flights.is_empty() {
        go_on(world, workers, &mut flights, 0).await?;
    }
    Ok(())
}

/// A batch is sent, or settled if it was.
async fn go_on(world: &Shared, workers: &mut [Worker<'_>], flights: &mut Vec<Flight>, chosen: usize) -> Checked {
    let flight = &mut flights[chosen];
    let Some(settlement) = &flight.settlement else {
        flight.settlement = Some(world.lock().await.send(&flight.batch, flight.number)?);
        return Ok(());
    };
    world.lock().await.settles(flight.number, settlement);
    let settled = workers[flight.relay].settle(&flight.batch, settlement).await.unwrap();
    let mut world = world.lock().await;
    std::mem::replace(&mut world.found, Ok(()))?;
    world.settled(flight.number, settlement, &settled).await?;
    flights.swap_remove(chosen);
    Ok(())
}

/// Nobody interferes any more: everything that stands is sent at last, and nothing is left of it.
async fn finish(relay: &Relay, world: &Shared) -> Checked {
    let mut worker = relay.worker();
    {
        let mut world = world.lock().await;
        world.quiet = true;
        world.observe().await?;
        world.clear_obstacles().await;
    }
    drain(relay, &mut worker, world).await?;
    world.lock().await.ledger.nothing_waits()?;
    world.lock().await.redrive_all().await;
    drain(relay, &mut worker, world).await?;
    let mut world = world.lock().await;
    world.ledger.nothing_stands()?;
    for table in ["order_placed", "signalbus_claim", "signalbus_hold"] {
        let left = world.count(table).await;
        if left > 0 {
            return Err(format!("{left} rows are left in {table}"));
        }
    }
    Ok(())
}

async fn drain(relay: &Relay, worker: &mut Worker<'_>, world: &Shared) -> Checked {
    for _ in 0..MANY {
        {
            let mut world = world.lock().await;
            world.expire().await;
            world.make_due("'retry', 'sent'").await;
            world.claims();
        }
        relay.lane.sweep(0, 1000).await.unwrap();
        relay.lane.rescan().await;
        let claimed = worker.claim(50, None).await.unwrap();
        let mut world = world.lock().await;
        world.observe().await?;
        let Claimed::Batch(batch) = claimed else { return Ok(()) };
        let number = world.claimed(&batch)?;
        for (index, signal) in batch.signals.iter().enumerate() {
            let version = world.ledger.flight(number).versions[index];
            world.ledger.sent(version, &signal.id)?;
        }
        world.settles(number, &sent(&batch));
        let settled = worker.settle(&batch, &sent(&batch)).await.unwrap();
        world.settled(number, &sent(&batch), &settled).await?;
    }
    Err("the same rows are sent again and again".into())
}

/// The schedules to run: one, or as many as there is time for.
fn seeds(usual: u32) -> Vec<u64> {
    match std::env::var("SIGNALBUS_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIGNALBUS_SEED is a number")],
        Err(_) => (0..u64::from(amount(usual, usual * 50))).collect(),
    }
}

/// How many schedules are run on a database where they take the longest.
const USUAL: u32 = 6;

async fn explore(database: &Database, setting: Setting) {
    World::prepare(database, setting.obstacle).await;
    let usual = database.choose(4 * USUAL, USUAL, USUAL);
    for seed in seeds(usual) {
        if let Err(violation) = schedule(database, &setting, seed, None).await {
            panic!("SIGNALBUS_SEED={seed}: {violation}\n");
        }
    }
}

mod cases {
    use super::*;

    pub async fn unordered(database: Database) {
        explore(&database, Setting::unordered(Obstacle::None)).await;
    }

    pub async fn with_a_backlog(database: Database) {
        explore(&database, Setting::with_backlog(Manner::Backlog)).await;
    }

    pub async fn promptly(database: Database) {
        explore(&database, Setting::with_backlog(Manner::Prompt)).await;
    }

    pub async fn ordered(database: Database) {
        explore(&database, Setting::ordered(Obstacle::None, &[])).await;
    }

    pub async fn ordered_by_key(database: Database) {
        explore(&database, Setting::ordered(Obstacle::None, &["customer"])).await;
    }

    pub async fn with_foreign_keys(database: Database) {
        explore(&database, Setting::unordered(Obstacle::ForeignKey)).await;
    }

    pub async fn with_triggers(database: Database) {
        explore(&database, Setting::unordered(Obstacle::Trigger)).await;
    }

    pub async fn ordered_with_triggers(database: Database) {
        explore(&database, Setting::ordered(Obstacle::Trigger, &["customer"])).await;
    }
}

crate::on_each_database!(
    unordered,
    with_a_backlog,
    promptly,
    ordered,
    ordered_by_key,
    with_foreign_keys,
    with_triggers,
    ordered_with_triggers,
);

/// How many schedules it may take to find a broken rule.
const ENOUGH: u64 = 2000;

/// Breaks a rule, and expects that some schedule shows it. Those before `first` are known not to.
async fn must_fail(rule: Rule, setting: Setting, first: u64) {
    let database = Database::sqlite().await;
    World::prepare(&database, setting.obstacle).await;
    for seed in if is_soak() { 0 } else { first }..ENOUGH {
        if let Err(violation) = schedule(&database, &setting, seed, Some(rule)).await {
            schedule(&database, &setting, seed, None).await.expect("the same schedule passes where no rule is broken");
            println!("{rule:?}: schedule {seed}: {}", violation.lines().next().unwrap_or_default());
            return;
        }
    }
    panic!("nobody has noticed in {ENOUGH} schedules that {rule:?} was broken");
}

macro_rules! must_fail {
    ($($name:ident: $rule:ident, $setting:expr, $first:literal;)*) => {
        mod broken {
            use super::*;

            $(
                #[cfg_attr(not(debug_assertions), ignore = "a release keeps its rules")]
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() { must_fail(Rule::$rule, $setting, $first).await }
            )*
        }
    };
}

must_fail! {
    no_fence: Fence, Setting::with_backlog(Manner::Backlog), 0;
    a_takeover_that_blocks_no_fence: TakeoverFences, Setting::with_backlog(Manner::Backlog), 0;
    a_lost_claim_that_is_read_on: LossStops, Setting::with_backlog(Manner::Backlog), 40;
    deletions_by_key_alone: VersionDeleted, Setting::unordered(Obstacle::None), 10;
    the_state_read_after_the_rows: StateWithRows, Setting::with_backlog(Manner::Prompt), 170;
    deletions_by_range: KeysNamed, Setting::unordered(Obstacle::None), 0;
    marked_rows_that_are_not_held: ResistanceHeld, Setting::unordered(Obstacle::Trigger), 0;
    holds_bound_to_keys_alone: HoldOfVersion, Setting::unordered(Obstacle::None), 0;
    ids_of_key_and_content: IdOfClaim, Setting::unordered(Obstacle::None), 0;
    ids_made_anew: SeedInherited, Setting::unordered(Obstacle::None), 0;
}
