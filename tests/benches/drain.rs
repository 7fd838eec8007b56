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
mod report;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::database::{Database, System};
use report::Report;
use signalbus::flusher::{Flusher, Patience};
use signalbus::outbox::{Outbox, Source};
use signalbus::plugin::{Engine, Plugin, PluginSpec, Sender};
use signalbus::relay::{Extent, Relay};
use signalbus::settlement::Policy;
use signalbus::signal::{Outcome, Signal, SignalType};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1000;
const WORKERS: usize = 4;

/// The result of one drain.
#[derive(Clone, Copy, Debug)]
struct Drain {
    rows_per_second: f64,
    /// The peak memory of its process, in MB.
    memory: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    if let [_, way, url] = &args[..] {
        runtime.block_on(drain(way, url));
        return;
    }
    let rows = std::env::var("SIGNALBUS_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let runs = std::env::var("SIGNALBUS_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let mut report = Report::default();
    // One part alone, by its name.
    let only = std::env::var("SIGNALBUS_BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    let systems = [System::Sqlite, System::Postgres, System::Mariadb];
    for (system, rows) in systems.into_iter().zip([rows, rows, rows.min(200_000)]) {
        if wanted("compare") {
            runtime.block_on(compare(&mut report, system, rows, runs));
        }
    }
    if wanted("row_by_row") {
        runtime.block_on(row_by_row(&mut report, rows, runs));
    }
    if wanted("version") {
        runtime.block_on(version_column(&mut report, rows.min(200_000), runs));
    }
    if wanted("snapshot") {
        runtime.block_on(held_snapshot(&mut report, rows, runs));
    }
    for system in systems {
        if wanted("dead") {
            runtime.block_on(dead_letters(&mut report, system, rows.min(200_000)));
        }
        if wanted("held") {
            runtime.block_on(held_rows(&mut report, system, rows.min(200_000)));
        }
    }
    report.write();
}

/// Runs the three ways and the small backlog in turn, several times, and compares them.
async fn compare(report: &mut Report, system: System, rows: u32, runs: usize) {
    let name = format!("{system:?}").to_lowercase();
    let mut drains: [Vec<Drain>; 4] = Default::default();
    for run in 0..runs {
        eprintln!("{name}: run {} of {runs}", run + 1);
        for (n, way) in ["plugin", "native", "raw"].iter().enumerate() {
            drains[n].push(measured(system, way, rows, None).await);
        }
        drains[3].push(measured(system, "plugin", 10_000.min(rows), None).await);
    }
    let [plugin, native, raw, few] = &drains;
    rates(report, &format!("{name}: plugin"), plugin);
    rates(report, &format!("{name}: native function"), native);
    rates(report, &format!("{name}: raw loop"), raw);
    rates(report, &format!("{name}: plugin, 10,000 pending"), few);
    ratios(report, &format!("{name}: plugin / native function"), plugin, native, "0.9");
    ratios(report, &format!("{name}: plugin / raw loop"), plugin, raw, "0.8");
    ratios(report, &format!("{name}: {rows} pending / 10,000 pending"), plugin, few, "0.9");
    report.add(&format!("{name}: memory"), plugin.iter().map(|drain| drain.memory).collect(), "MB", "below 80");
}

/// Drains a table of MariaDB with a column that tells its versions.
async fn version_column(report: &mut Report, rows: u32, runs: usize) {
    let (mut versioned, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        versioned.push(measured(System::Mariadb, "versioned", rows, None).await);
        raw.push(measured(System::Mariadb, "raw", rows, None).await);
    }
    rates(report, "mariadb: version column", &versioned);
    ratios(report, "mariadb: version column / raw loop", &versioned, &raw, "0.95");
}

/// Compares a plugin whose author's function takes one row with one whose function takes the batch.
async fn row_by_row(report: &mut Report, rows: u32, runs: usize) {
    for system in [System::Sqlite, System::Postgres] {
        let name = format!("{system:?}").to_lowercase();
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            one.push(measured(system, "sends_one", rows, None).await);
            all.push(measured(system, "sends", rows, None).await);
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
            with.push(measured(System::Postgres, way, rows, Some(hold)).await);
            without.push(measured(System::Postgres, way, rows, None).await);
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
async fn held_rows(report: &mut Report, system: System, rows: u32) {
    let source = Source { signal: "OrderPlaced".into(), table: "order_placed".into(), ..Source::default() };
    let name = format!("{system:?}").to_lowercase();
    let mut rates = Vec::new();
    for held in [false, true] {
        let database = database(system).await;
        database.orders(if held { rows } else { 0 }).await;
        let outbox = Outbox::open(&database.url, WORKERS as u32).unwrap();
        let hold = |_: &SignalType, signals: &[Signal]| {
            let later = Some(Duration::from_secs(86_400));
            let outcome = |n| match n % 2 {
                0 => Outcome::Reject { reason: "no route".into() },
                _ => Outcome::Retry { reason: "busy".into(), after: later },
            };
            Ok((0..signals.len()).map(outcome).collect())
        };
        let flusher_of = |table, sender| Relay::from_flushers(vec![flusher(table, sender, "native")]);
        let table = outbox.signal_table(&source).await.unwrap();
        flusher_of(table, Arc::new(hold)).flush(Extent::All, &CancellationToken::new(), |_| ()).await;
        let series = database.series(rows);
        database.run(&format!("INSERT INTO order_placed SELECT 10000000 + i, 'x', {} FROM {series}", "'fresh'")).await;
        if system == System::Postgres {
            database.run("VACUUM ANALYZE").await;
        }
        let first = Arc::new(std::sync::OnceLock::new());
        let seen = first.clone();
        let send = move |_: &SignalType, signals: &[Signal]| {
            seen.get_or_init(Instant::now);
            Ok(vec![Outcome::Sent; signals.len()])
        };
        let begun = Instant::now();
        let table = outbox.signal_table(&source).await.unwrap();
        let flushed = flusher_of(table, Arc::new(send)).flush(Extent::All, &CancellationToken::new(), |_| ()).await;
        assert_eq!(flushed[0].tally.sent.load(std::sync::atomic::Ordering::Relaxed), u64::from(rows), "{system:?}");
        let first = *first.get().unwrap();
        rates.push(f64::from(rows) / first.elapsed().as_secs_f64());
        if held {
            report.add(
                &format!("{name}: first pass over {rows} held rows"),
                vec![1000.0 * (first - begun).as_secs_f64()],
                "ms",
                "",
            );
        }
    }
    report.add(&format!("{name}: behind {rows} held rows / without"), vec![rates[1] / rates[0]], "ratio", "at least 0.8");
}

async fn database(system: System) -> Database {
    match system {
        System::Sqlite => Database::sqlite().await,
        System::Postgres => Database::postgres().await,
        System::Mariadb => Database::mariadb().await,
    }
}

fn flusher(table: signalbus::outbox::SignalTable, sender: Arc<dyn Sender>, way: &str) -> Flusher {
    let ordered = ["ordered", "keyed"].contains(&way);
    let policy = Policy { ordered, holds_dead: false, max_attempts: 20, backoff: signalbus::backoff::Backoff::default() };
    let burst_count = if way == "small" { 20 } else { BATCH };
    let concurrency = if way == "ordered" { 1 } else { WORKERS };
    Flusher { table, sender, policy, burst_count, concurrency, patience: Patience::ONE_SHOT }
}

/// Fills a new database, and drains it in a process of its own.
async fn measured(system: System, way: &str, rows: u32, hold: Option<&'static str>) -> Drain {
    let database = database(system).await;
    database.orders(rows).await;
    if way == "versioned" {
        let column = "changed_at TIMESTAMP(6) NOT NULL DEFAULT NOW(6) ON UPDATE NOW(6)";
        database.run(&format!("ALTER TABLE order_placed ADD {column}")).await;
    }
    let mut holder = None;
    if system == System::Postgres {
        database.run("VACUUM ANALYZE order_placed").await;
        database.run("CHECKPOINT").await;
        if let Some(hold) = hold {
            let mut connection = database.postgres_connection().await;
            connection.execute(hold).await.unwrap();
            holder = Some(connection);
        }
    }
    let output = Command::new(std::env::current_exe().unwrap()).args([way, &database.url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut figures = text.split_whitespace().map(|figure| figure.parse::<f64>().unwrap());
    let (drained, seconds, memory) = (figures.next().unwrap(), figures.next().unwrap(), figures.next().unwrap());
    assert_eq!(drained as u32, rows, "{system:?} {way}");
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
    if let Some(connection) = holder {
        connection.close().await.unwrap();
    }
    if system == System::Postgres {
        database.run("TRUNCATE order_placed").await;
    }
    Drain { rows_per_second: drained / seconds, memory }
}

/// Runs in its own process: prints the rows, the seconds and the megabytes.
async fn drain(way: &str, url: &str) {
    let (rows, time) = match way {
        "raw" => raw(url).await,
        way => relay(way, url).await,
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{rows} {} {}", time.as_secs_f64(), kilobytes / 1000.0);
}

async fn relay(way: &str, url: &str) -> (u64, Duration) {
    let source = Source { signal: "OrderPlaced".into(), table: "order_placed".into(), ..Source::default() };
    let columns = |wanted: bool| if wanted { vec!["id".to_owned()] } else { Vec::new() };
    let ordered = ["ordered", "keyed"].contains(&way);
    // Strictly, or with a key of its own for every row.
    let source = Source { order_by: columns(ordered), order_key: columns(way == "keyed"), ..source };
    let source = Source { version: (way == "versioned").then(|| "changed_at".to_owned()), ..source };
    let table = Outbox::open(url, WORKERS as u32).unwrap().signal_table(&source).await.unwrap();
    let sender: Arc<dyn Sender> = if way == "native" || ordered {
        Arc::new(|_: &SignalType, signals: &[Signal]| Ok(vec![Outcome::Sent; signals.len()]))
    } else {
        let engine = Engine::new(Some(harness::target().join("test-cache")), signalbus::plugin::Compiler::InProcess).unwrap();
        let guest = harness::guest(if way.starts_with("sends") { way } else { "noop" });
        let spec = PluginSpec { signal_type: "OrderPlaced".into(), path: guest, ..PluginSpec::default() };
        Arc::new(Plugin::load(&engine, &spec).await.unwrap())
    };
    let relay = Relay::from_flushers(vec![flusher(table, sender, way)]);
    let begun = Instant::now();
    let flushed = relay.flush(Extent::All, &CancellationToken::new(), |_| ()).await;
    assert!(flushed[0].halt.is_none(), "{:?}", flushed[0].halt);
    (flushed[0].tally.sent.load(std::sync::atomic::Ordering::Relaxed), begun.elapsed())
}

/// Runs the same SELECT and DELETE in turn over one connection.
async fn raw(url: &str) -> (u64, Duration) {
    match url.split(':').next() {
        Some("sqlite") => raw_sqlite(url).await,
        Some("mysql") => raw_mariadb(url).await,
        _ => raw_postgres(url).await,
    }
}

async fn raw_sqlite(url: &str) -> (u64, Duration) {
    let options: sqlx::sqlite::SqliteConnectOptions = url.replace("&foreign_keys=on", "").parse().unwrap();
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let options = options.synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let (begun, mut rows, mut position) = (Instant::now(), 0, 0_i64);
    loop {
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        let select = "SELECT id, customer, payload FROM order_placed WHERE id > ? ORDER BY id LIMIT 1000";
        let batch = sqlx::query(select).bind(position).fetch_all(&mut connection).await.unwrap();
        let ids: Vec<i64> = batch.iter().map(|row| row.get(0)).collect();
        let Some(last) = ids.last() else { break };
        position = *last;
        let places = vec!["?"; ids.len()].join(", ");
        let mut delete = sqlx::query(AssertSqlSafe(format!("DELETE FROM order_placed WHERE id IN ({places})")));
        for id in &ids {
            delete = delete.bind(id);
        }
        rows += delete.execute(&mut connection).await.unwrap().rows_affected();
        connection.execute("COMMIT").await.unwrap();
    }
    (rows, begun.elapsed())
}

async fn raw_mariadb(url: &str) -> (u64, Duration) {
    let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
    let (begun, mut rows, mut position) = (Instant::now(), 0, 0_i64);
    loop {
        let select = "SELECT id, customer, payload FROM order_placed WHERE id > ? ORDER BY id LIMIT 1000";
        let batch = sqlx::query(select).bind(position).fetch_all(&mut connection).await.unwrap();
        let ids: Vec<i64> = batch.iter().map(|row| row.get(0)).collect();
        let Some(last) = ids.last() else { break };
        position = *last;
        let places = vec!["?"; ids.len()].join(", ");
        let mut delete = sqlx::query(AssertSqlSafe(format!("DELETE FROM order_placed WHERE id IN ({places})")));
        for id in &ids {
            delete = delete.bind(id);
        }
        rows += delete.execute(&mut connection).await.unwrap().rows_affected();
    }
    (rows, begun.elapsed())
}

async fn raw_postgres(url: &str) -> (u64, Duration) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let (begun, mut rows, mut position) = (Instant::now(), 0, 0_i64);
    loop {
        let select = "SELECT id, customer, payload FROM order_placed WHERE id > $1 ORDER BY id LIMIT 1000";
        let batch = sqlx::query(select).bind(position).fetch_all(&mut connection).await.unwrap();
        let ids: Vec<i64> = batch.iter().map(|row| row.get(0)).collect();
        let Some(last) = ids.last() else { break };
        position = *last;
        let delete = sqlx::query("DELETE FROM order_placed WHERE id = ANY($1)").bind(ids);
        rows += delete.execute(&mut connection).await.unwrap().rows_affected();
    }
    (rows, begun.elapsed())
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
