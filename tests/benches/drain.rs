//! How fast a backlog drains: a plugin compared with a native function in its place, and with a raw
//! loop of the same SELECT and DELETE; 10,000 rows compared with a million; with an idle snapshot held,
//! in large and small batches, in strict order, and by order keys. Every drain runs in its own process, so that its
//! memory can be measured.
//! Prints a table, and writes `target/bench.json`.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measurement that cannot go on ends, and its figures are for people"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "drain/raw.rs"]
mod raw;
mod report;
#[path = "drain/tables.rs"]
mod tables;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::database::{Database, System};
use report::Report;
use signalbus::flusher::{Flusher, Patience};
use signalbus::outbox::{Outbox, Source};
use signalbus::plugin::{Engine, Plugin, PluginSpec, Sender, Sending};
use signalbus::relay::{Extent, Relay};
use signalbus::settlement::Policy;
use signalbus::signal::{Outcome, Signal, SignalType};
use sqlx::{Connection as _, Executor as _};
use tables::Key;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1000;
const WORKERS: usize = 4;

/// The result of one drain.
#[derive(Clone, Copy, Debug)]
struct Drain {
    rows_per_second: f64,
    /// The peak memory of its process, in MB.
    memory: f64,
    /// The rate of its last tenth, compared with that of its first.
    slope: f64,
    /// The seconds until its first signal was sent, which do not count.
    first: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    if let [_, key, way, url] = &args[..] {
        runtime.block_on(drain(Key::named(key), way, url));
        return;
    }
    let rows = std::env::var("SIGNALBUS_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let runs = std::env::var("SIGNALBUS_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let mut report = Report::default();
    // One part alone, by its name; of the comparisons, one alone as "sqlite Uuid".
    let only = std::env::var("SIGNALBUS_BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    let systems = [System::Sqlite, System::Postgres, System::Mariadb];
    runtime.block_on(compare(&mut report, rows, runs, &only));
    if wanted("blocked") {
        runtime.block_on(blocked_keys(&mut report, rows, runs));
    }
    if wanted("row_by_row") {
        runtime.block_on(row_by_row(&mut report, rows, runs));
    }
    if wanted("snapshot") {
        runtime.block_on(held_snapshot(&mut report, rows, runs));
    }
    for system in systems {
        if wanted("dead") {
            runtime.block_on(dead_letters(&mut report, system, rows.min(200_000)));
        }
        if wanted("held") {
            runtime.block_on(held_rows(&mut report, system, rows, runs));
        }
    }
    report.write();
}

/// Drains tables by every kind of key, in three ways in turn, several times, and compares these.
async fn compare(report: &mut Report, rows: u32, runs: usize, only: &str) {
    use Key::{Auto, Bigint, Composite, OneByOne, RowNumber, Uuid, Versioned};
    let few = rows.min(200_000);
    let tables = [
        (System::Sqlite, RowNumber, rows, "0.95"),
        (System::Sqlite, Auto, rows, "0.95"),
        (System::Sqlite, Bigint, rows, "0.85"),
        (System::Sqlite, Uuid, rows, "0.85"),
        (System::Sqlite, Composite, rows, "0.85"),
        (System::Postgres, Auto, rows, "0.95"),
        (System::Postgres, OneByOne, few, "0.95"),
        (System::Postgres, Uuid, few, "0.95"),
        (System::Mariadb, Auto, rows, "0.8"),
        (System::Mariadb, Bigint, few, "0.8"),
        (System::Mariadb, Uuid, few, "0.8"),
        (System::Mariadb, Versioned, rows, "0.95"),
    ];
    for (system, key, rows, wanted) in tables {
        let name = format!("{} {key:?}", format!("{system:?}").to_lowercase());
        if !["", "compare", &name].contains(&only) {
            continue;
        }
        let mut drains: [Vec<Drain>; 4] = Default::default();
        for run in 0..runs {
            eprintln!("{name}: run {} of {runs}", run + 1);
            for (n, way) in ["plugin", "native", "raw"].iter().enumerate() {
                drains[n].push(measured(system, key, way, rows, None).await);
            }
            drains[3].push(measured(system, key, "plugin", 10_000.min(rows), None).await);
        }
        let [plugin, native, raw, few] = &drains;
        rates(report, &format!("{name}: plugin"), plugin);
        rates(report, &format!("{name}: native function"), native);
        rates(report, &format!("{name}: raw loop"), raw);
        ratios(report, &format!("{name}: plugin / native function"), plugin, native, "0.92");
        ratios(report, &format!("{name}: plugin / raw loop"), plugin, raw, wanted);
        ratios(report, &format!("{name}: {rows} pending / 10,000 pending"), plugin, few, "0.9");
        let slopes = plugin.iter().map(|drain| drain.slope).collect();
        report.add(&format!("{name}: last tenth / first tenth"), slopes, "ratio", "at least 0.9");
        report.add(&format!("{name}: memory"), plugin.iter().map(|drain| drain.memory).collect(), "MB", "below 40");
    }
}

/// Drains a table of a hundred thousand order keys, of which a fifth is blocked by a row that is deferred, or none.
async fn blocked_keys(report: &mut Report, rows: u32, runs: usize) {
    for system in [System::Sqlite, System::Postgres, System::Mariadb] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            with.push(measured(system, Key::Ordered, "blocked", rows, None).await);
            without.push(measured(system, Key::Ordered, "by_key", rows, None).await);
        }
        let name = format!("{system:?}").to_lowercase();
        rates(report, &format!("{name}: 100,000 order keys"), &without);
        ratios(report, &format!("{name}: 20,000 of 100,000 order keys blocked / none"), &with, &without, "0.7");
    }
}

/// Compares a plugin whose author's function takes one row with one whose function takes the batch.
async fn row_by_row(report: &mut Report, rows: u32, runs: usize) {
    for system in [System::Sqlite, System::Postgres] {
        let name = format!("{system:?}").to_lowercase();
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            one.push(measured(system, Key::Auto, "sends_one", rows, None).await);
            all.push(measured(system, Key::Auto, "sends", rows, None).await);
        }
        rates(report, &format!("{name}: plugin that sends row by row"), &one);
        ratios(report, &format!("{name}: row by row / plugin that takes the batch"), &one, &all, "0.9");
    }
}

/// Drains a backlog while another session holds an idle REPEATABLE READ snapshot.
async fn held_snapshot(report: &mut Report, rows: u32, runs: usize) {
    for way in ["plugin", "small", "ordered", "keyed"] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM signalbus_lane";
            with.push(measured(System::Postgres, Key::Auto, way, rows, Some(hold)).await);
            without.push(measured(System::Postgres, Key::Auto, way, rows, None).await);
        }
        rates(report, &format!("postgres: {way}, snapshot held"), &with);
        ratios(report, &format!("postgres: {way}, with / without a held snapshot"), &with, &without, "0.9");
    }
}

/// Buries a backlog of which everything is rejected, and redrives it.
async fn dead_letters(report: &mut Report, system: System, rows: u32) {
    let database = database(system).await;
    database.orders(rows).await;
    let source = Source { signal: "OrderPlaced".into(), table: "order_placed".into(), ..Source::default() };
    let outbox = Outbox::open(&database.url, WORKERS as u32).unwrap();
    let reject = |_: &SignalType, signals: &[Signal]| Ok(vec![Outcome::Reject { reason: "no route".into() }; signals.len()]);
    let flusher = flusher(outbox.signal_table(&source).await.unwrap(), Arc::new(reject), "native");
    let begun = Instant::now();
    let flushed = Relay::from_flushers(vec![flusher]).flush(Extent::All, &CancellationToken::new(), |_| ()).await;
    let buried = flushed[0].tally.buried.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((buried as u32, flushed[0].halt.is_none()), (rows, true), "{system:?}");
    let name = format!("{system:?}").to_lowercase();
    let rate = f64::from(rows) / begun.elapsed().as_secs_f64();
    report.add(&format!("{name}: buried"), vec![rate], "rows/s", "at least 5,000");
    let begun = Instant::now();
    assert_eq!(outbox.redrive_selected(&signalbus::outbox::Selection::default()).await.unwrap(), u64::from(rows));
    report.add(&format!("{name}: {rows} redriven"), vec![begun.elapsed().as_secs_f64()], "s", "below 10");
}

/// Drains fresh rows behind as many held ones, half of which are dead and the others deferred.
async fn held_rows(report: &mut Report, system: System, rows: u32, runs: usize) {
    let name = format!("{system:?}").to_lowercase();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        with.push(measured(system, Key::Auto, "held", 2 * rows, None).await);
        without.push(measured(system, Key::Auto, "native", rows, None).await);
    }
    let passed = with.iter().map(|drain| 1000.0 * drain.first).collect();
    report.add(&format!("{name}: first pass over {rows} held rows"), passed, "ms", "");
    ratios(report, &format!("{name}: behind {rows} held rows / without"), &with, &without, "0.8");
}

async fn database(system: System) -> Database {
    match system {
        System::Sqlite => Database::sqlite().await,
        System::Postgres => Database::postgres().await,
        System::Mariadb => Database::mariadb().await,
    }
}

fn flusher(table: signalbus::outbox::SignalTable, sender: Arc<dyn Sender>, way: &str) -> Flusher {
    let ordered = ["ordered", "keyed", "by_key", "blocked"].contains(&way);
    let policy = Policy { ordered, holds_dead: false, max_attempts: 20, backoff: signalbus::backoff::Backoff::default() };
    let burst_count = if way == "small" { 20 } else { BATCH };
    let concurrency = if way == "ordered" { 1 } else { WORKERS };
    Flusher { table, sender, policy, burst_count, concurrency: concurrency.into(), patience: Patience::ONE_SHOT }
}

/// Fills a new database, and drains it in a process of its own.
async fn measured(system: System, key: Key, way: &str, rows: u32, hold: Option<&'static str>) -> Drain {
    let database = database(system).await;
    key.fill(&database, rows).await;
    let mut holder = None;
    if let Some(hold) = hold {
        let mut connection = database.postgres_connection().await;
        connection.execute(hold).await.unwrap();
        holder = Some(connection);
    }
    let arguments = [&format!("{key:?}"), way, &database.url];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env("SIGNALBUS_BENCH_TABLE", rows.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    let [drained, seconds, memory, slope, first] = figures[..] else { panic!("{text}") };
    let left = match way {
        "blocked" => rows / 5,
        "held" => rows / 2,
        _ => 0,
    };
    assert_eq!(drained as u32, rows - left, "{system:?} {key:?} {way}");
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, i64::from(left));
    if let Some(connection) = holder {
        connection.close().await.unwrap();
    }
    match system {
        System::Postgres => database.run("TRUNCATE order_placed").await,
        System::Mariadb => database.run("DROP TABLE order_placed").await,
        System::Sqlite => {}
    }
    let seconds = if way == "held" { seconds - first } else { seconds };
    Drain { rows_per_second: drained / seconds, memory, slope, first }
}

/// Runs in its own process: prints the rows, the seconds, the megabytes, and the slope.
async fn drain(key: Key, way: &str, url: &str) {
    let (rows, time, slope, first) = match way {
        "raw" => {
            let (rows, time) = raw::raw(url, key).await;
            (rows, time, 1.0, 0.0)
        }
        way => relay(key, way, url).await,
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{rows} {} {} {slope} {first}", time.as_secs_f64(), kilobytes / 1000.0);
}

async fn relay(key: Key, way: &str, url: &str) -> (u64, Duration, f64, f64) {
    let source = Source { signal: "OrderPlaced".into(), table: "order_placed".into(), ..Source::default() };
    let column = |name: &str, wanted: bool| if wanted { vec![name.to_owned()] } else { Vec::new() };
    let by_key = key == Key::Ordered;
    // Strictly, with a key of its own for every row, or with a hundred thousand keys.
    let order_key = if by_key { column("customer", true) } else { column("id", way == "keyed") };
    let source = Source { order_by: column("id", by_key || ["ordered", "keyed"].contains(&way)), order_key, ..source };
    let source = Source { version: (key == Key::Versioned).then(|| "changed_at".to_owned()), ..source };
    let table = Outbox::open(url, WORKERS as u32).unwrap().signal_table(&source).await.unwrap();
    let native = ["native", "ordered", "keyed", "by_key", "blocked", "held"];
    let sender: Arc<dyn Sender> = if native.contains(&way) {
        Arc::new(|_: &SignalType, signals: &[Signal]| Ok(vec![Outcome::Sent; signals.len()]))
    } else {
        let engine = Engine::new(Some(harness::target().join("test-cache")), signalbus::plugin::Compiler::InProcess).unwrap();
        let guest = harness::guest(if way.starts_with("sends") { way } else { "noop" });
        let spec = PluginSpec { signal_type: "OrderPlaced".into(), path: guest, ..PluginSpec::default() };
        Arc::new(Plugin::load(&engine, &spec).await.unwrap())
    };
    if way == "blocked" {
        // The first row of each of 20,000 order keys.
        hold(url, &source, 20_000, |_| Outcome::Retry { reason: "busy".into(), after: Some(LATER) }).await;
    } else if way == "held" {
        let rows = std::env::var("SIGNALBUS_BENCH_TABLE").unwrap().parse::<i64>().unwrap();
        hold(url, &source, rows / 2, |n| match n % 2 {
            0 => Outcome::Reject { reason: "no route".into() },
            _ => Outcome::Retry { reason: "busy".into(), after: Some(LATER) },
        })
        .await;
    }
    let timed = Arc::new(Timed { sender, sent: Mutex::default() });
    let relay = Relay::from_flushers(vec![flusher(table, timed.clone(), way)]);
    let begun = Instant::now();
    let flushed = relay.flush(Extent::All, &CancellationToken::new(), |_| ()).await;
    let time = begun.elapsed();
    assert!(flushed[0].halt.is_none(), "{:?}", flushed[0].halt);
    let sent = timed.sent.lock().unwrap().clone();
    let [first, last] = [sent.first(), sent.last()].map(|sent| sent.map_or(begun, |(at, _)| *at) - begun);
    // (In the end it looks at all that is held once more.)
    let time = if way == "held" { last } else { time };
    (flushed[0].tally.sent.load(std::sync::atomic::Ordering::Relaxed), time, timed.slope(begun), first.as_secs_f64())
}

const LATER: Duration = Duration::from_secs(86_400);

/// Holds the rows up to a key, each as `outcome` says.
async fn hold(url: &str, source: &Source, until: i64, outcome: impl Fn(usize) -> Outcome + Send + Sync + 'static) {
    let table = Outbox::open(url, WORKERS as u32).unwrap().signal_table(source).await.unwrap();
    let sender = move |_: &SignalType, signals: &[Signal]| Ok((0..signals.len()).map(&outcome).collect());
    let ordered = !source.order_by.is_empty();
    let policy = Policy { ordered, holds_dead: false, max_attempts: 20, backoff: signalbus::backoff::Backoff::default() };
    let (burst_count, patience) = (BATCH, Patience::ONE_SHOT);
    let flusher = Flusher { table, sender: Arc::new(sender), policy, burst_count, concurrency: 1.into(), patience };
    let tally = signalbus::flusher::Tally::default();
    flusher.flush(Some(&until.to_string()), &tally, &CancellationToken::new()).await.unwrap();
}

/// A sender, and when it has sent how many.
struct Timed {
    sender: Arc<dyn Sender>,
    sent: Mutex<Vec<(Instant, usize)>>,
}

impl Sender for Timed {
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a> {
        Box::pin(async move {
            let verdict = self.sender.send(signal_type, signals, stop).await;
            self.sent.lock().unwrap().push((Instant::now(), signals.len()));
            verdict
        })
    }
}

impl Timed {
    /// The rate of the last tenth of all signals, compared with that of the first.
    fn slope(&self, begun: Instant) -> f64 {
        let sent = self.sent.lock().unwrap();
        let all: usize = sent.iter().map(|(_, number)| number).sum();
        let reached = |wanted: usize| {
            let mut so_far = 0;
            let reached = |(at, number): &(Instant, usize)| {
                so_far += number;
                (so_far >= wanted).then_some(*at)
            };
            sent.iter().find_map(reached).unwrap_or(begun)
        };
        let (first, last) = (reached(all / 10) - begun, reached(all) - reached(all - all / 10));
        first.as_secs_f64() / last.as_secs_f64()
    }
}

fn rates(report: &mut Report, name: &str, drains: &[Drain]) {
    report.add(name, drains.iter().map(|drain| drain.rows_per_second).collect(), "rows/s", "");
}

/// Reports the ratio of each drain to the one of the same round.
fn ratios(report: &mut Report, name: &str, drains: &[Drain], against: &[Drain], wanted: &str) {
    let pairs = drains.iter().zip(against);
    let ratios = pairs.map(|(drain, other)| drain.rows_per_second / other.rows_per_second).collect();
    report.add(name, ratios, "ratio", &format!("at least {wanted}"));
}
