//! Latency from the commit to the call of the plugin, for each way to notice commits; the cost of the
//! default way for writers; how relays share work, how fast one starts, and its idle memory. The relay
//! is the real command in its own process.
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

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::database::{Database, System};
use harness::relay::{Running, section};
use report::Report;
use sqlx::{Connection as _, Executor as _};

/// A way for a relay to notice commits.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Polling,
    Listen,
    WakeCall,
    LogWatch,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let samples = std::env::var("SIGNALBUS_BENCH_SAMPLES").ok().and_then(|samples| samples.parse().ok()).unwrap_or(300);
    let mut report = Report::default();
    // One part alone, by its name.
    let only = std::env::var("SIGNALBUS_BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only == part;
    runtime.block_on(async {
        if wanted("ways") {
            for (name, system, way, most) in [
                ("sqlite: log watch", System::Sqlite, Way::LogWatch, (2.0, 5.0)),
                ("postgres: polling", System::Postgres, Way::Polling, (20.0, 20.0)),
                ("postgres: listen", System::Postgres, Way::Listen, (2.0, 10.0)),
                ("postgres: wake call", System::Postgres, Way::WakeCall, (2.0, 10.0)),
                ("mariadb: polling", System::Mariadb, Way::Polling, (20.0, 20.0)),
            ] {
                let latencies = latencies(system, way, samples, false).await;
                let [half, nearly] = [0.5, 0.99].map(|share| at(&latencies, share));
                report.add(&format!("{name}: commit to call, p50"), vec![half], "ms", &format!("at most {}", most.0));
                report.add(&format!("{name}: commit to call, p99"), vec![nearly], "ms", &format!("at most {}", most.1));
            }
        }
        if wanted("stalls") {
            stalls(&mut report, samples).await;
        }
        if wanted("writers") {
            writers(&mut report).await;
        }
        if wanted("beside_a_drain") {
            beside_a_drain(&mut report).await;
        }
        if wanted("sharing") {
            sharing(&mut report).await;
        }
        if wanted("neighbours") {
            neighbours(&mut report).await;
        }
        if wanted("swaps") {
            swaps(&mut report).await;
        }
        if wanted("starts") {
            starts(&mut report).await;
        }
        if wanted("idle") {
            idle(&mut report).await;
        }
    });
    report.write();
}

async fn database(system: System) -> Database {
    let database = match system {
        System::Sqlite => Database::sqlite().await,
        System::Postgres => Database::postgres().await,
        System::Mariadb => Database::mariadb().await,
    };
    database.orders(0).await;
    database
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn at(latencies: &[f64], share: f64) -> f64 {
    latencies[((latencies.len() - 1) as f64 * share) as usize]
}

/// Beside a writer that locks the table now and then, a look that had to wait must not make the relay slow afterwards.
async fn stalls(report: &mut Report, samples: u32) {
    let (mut polling, mut more) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let [polled, heard] = [Way::Polling, Way::Listen].map(|way| latencies(System::Postgres, way, 5 * samples, true));
        let (polled, heard) = (at(&polled.await, 0.99), at(&heard.await, 0.99));
        polling.push(polled);
        more.push(polled - heard);
    }
    report.add("postgres: polling beside a writer that stalls, p99", polling, "ms", "");
    report.add("postgres: the same, more than with listen", more, "ms", "at most 20");
}

/// Holds the table's lock for a while, now and then.
async fn stall(database: &Database) {
    let mut connection = database.postgres_connection().await;
    loop {
        connection
            .execute("BEGIN; LOCK TABLE order_placed IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.1); COMMIT")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(1900)).await;
    }
}

/// Latencies in milliseconds, sorted. With `stalls`, a hundred rows a second beside a writer that stalls.
async fn latencies(system: System, way: Way, samples: u32, stalls: bool) -> Vec<f64> {
    let database = database(system).await;
    let sections = section("OrderPlaced", &harness::guest("counts"), "");
    let mut relay = Running::spawn(&database, &sections, "");
    relay.wait_ready();
    if way == Way::Listen {
        relay.project.ok(&["migrate", "--notify"]);
        assert_eq!(relay.stop(), Some(0));
        relay.again();
        relay.wait_ready();
    }
    if matches!(way, Way::Listen | Way::LogWatch) {
        relay.witness.wait_until("the database announces commits");
    }
    let mut committed = HashMap::new();
    let mut writer = Writer::connect(&database).await;
    let mut random = fastrand::Rng::with_seed(7);
    let pauses = if stalls { 5..15 } else { 15..45 };
    let writes = async {
        for id in 1..=samples {
            tokio::time::sleep(Duration::from_millis(random.u64(pauses.clone()))).await;
            writer.insert(i64::from(id)).await;
            committed.insert(format!("OrderPlaced:{id}"), now());
            if way == Way::WakeCall {
                assert_eq!(relay.post("/api/v1/wake?signal=OrderPlaced").status, 200);
            }
        }
    };
    let stalling = async { if stalls { stall(&database).await } else { std::future::pending::<()>().await } };
    tokio::select! { () = writes => {} () = stalling => {} }
    relay.witness.wait_for(samples as usize);
    let mut latencies = Vec::new();
    for line in relay.witness.text().lines().filter(|line| line.contains("counted")) {
        let at = seconds_of_day(line);
        let (_, ids) = line.split_once("ids=").unwrap();
        for id in ids.trim().trim_matches('"').split(',') {
            // The relay may notice a commit before its writer gets the reply.
            latencies.push(((at - committed[id.split('~').next().unwrap()] % 86_400.0) * 1000.0).max(0.0));
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// A log line begins with `2026-11-25T09:49:31.187502Z`.
fn seconds_of_day(line: &str) -> f64 {
    let time = line.split('T').nth(1).unwrap().split('Z').next().unwrap();
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
}

enum Writer {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
    Mariadb(sqlx::MySqlConnection),
}

impl Writer {
    async fn connect(database: &Database) -> Self {
        match database.system {
            System::Sqlite => {
                let mut connection = database.sqlite_connection().await;
                connection.execute("PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000").await.unwrap();
                Self::Sqlite(connection)
            }
            System::Postgres => Self::Postgres(database.postgres_connection().await),
            System::Mariadb => Self::Mariadb(database.mariadb_connection().await),
        }
    }

    async fn insert(&mut self, id: i64) {
        let text = "INSERT INTO order_placed VALUES (?, 'c', 'p')";
        match self {
            Self::Sqlite(connection) => sqlx::query(text).bind(id).execute(connection).await.map(drop).unwrap(),
            Self::Mariadb(connection) => sqlx::query(text).bind(id).execute(connection).await.map(drop).unwrap(),
            Self::Postgres(connection) => {
                let text = "INSERT INTO order_placed VALUES ($1, 'c', 'p')";
                sqlx::query(text).bind(id).execute(connection).await.map(drop).unwrap();
            }
        }
    }
}

/// Eight writers that commit row by row: alone, beside a relay that polls at its highest rate, and
/// beside one that is notified by triggers.
async fn writers(report: &mut Report) {
    let (mut polled, mut notified) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let alone = commits(None).await;
        polled.push(commits(Some(Way::Polling)).await / alone);
        notified.push(commits(Some(Way::Listen)).await / alone);
    }
    report.add("postgres: writers beside a relay that polls / alone", polled, "ratio", "at least 0.97");
    report.add("postgres: writers with `--notify` / alone", notified, "ratio", "");
}

/// Commits per second into a table that the relay does not send: this measures how the relay notices
/// commits, not how it sends.
async fn commits(way: Option<Way>) -> f64 {
    const TIME: Duration = Duration::from_secs(4);
    let database = database(System::Postgres).await;
    database.run("CREATE TABLE written (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note TEXT)").await;
    let sections = section("OrderPlaced", &harness::guest("sends"), "");
    let relay = way.map(|way| {
        let relay = Running::start(&database, &sections);
        if way == Way::Listen {
            relay.project.ok(&["migrate", "--notify"]);
        }
        relay
    });
    if way == Some(Way::Listen) {
        database.run("CREATE TRIGGER signalbus_notify AFTER INSERT ON written FOR EACH STATEMENT EXECUTE FUNCTION signalbus_notify('OrderPlaced')").await;
    }
    let begun = std::time::Instant::now();
    let writer = async || {
        let mut connection = database.postgres_connection().await;
        let mut commits = 0_u32;
        while begun.elapsed() < TIME {
            connection.execute("INSERT INTO written (note) VALUES ('x')").await.unwrap();
            commits += 1;
        }
        connection.close().await.unwrap();
        commits
    };
    // An occasional row keeps the relay polling at its highest rate.
    let trickle = async {
        let mut connection = database.postgres_connection().await;
        while begun.elapsed() < TIME {
            connection
                .execute("INSERT INTO order_placed SELECT coalesce(max(id), 0) + 1, 'c', 'p' FROM order_placed")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(1000)).await;
        }
    };
    let writers = futures::future::join_all((0..8).map(|_| writer()));
    let (commits, ()) = tokio::join!(writers, trickle);
    drop(relay);
    let rate = f64::from(commits.iter().sum::<u32>()) / begun.elapsed().as_secs_f64();
    database.discard().await;
    rate
}

/// How long a writer of an SQLite file waits for its commit while a backlog is drained: which waiting
/// writer SQLite lets in is a matter of chance.
async fn beside_a_drain(report: &mut Report) {
    let (mut usual, mut longest) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let database = Database::sqlite().await;
        database.orders(1_500_000).await;
        let _relay = Running::start(&database, &section("OrderPlaced", &harness::guest("sends"), ""));
        let mut writer = Writer::connect(&database).await;
        let (begun, mut waits, mut id) = (std::time::Instant::now(), Vec::new(), 10_000_000);
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = std::time::Instant::now();
            id += 1;
            writer.insert(id).await;
            waits.push(asked.elapsed().as_secs_f64() * 1000.0);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(database.number("SELECT count(*) FROM order_placed").await > 0, "the drain ended too early");
        waits.sort_by(f64::total_cmp);
        usual.push(waits[waits.len() * 99 / 100]);
        longest.push(waits[waits.len() - 1]);
    }
    report.add("sqlite: a writer's commit beside a drain, p99", usual, "ms", "");
    report.add("sqlite: a writer's commit beside a drain, longest", longest, "ms", "");
}

/// One process compared with four that send the same backlog, through a plugin that waits for its
/// network.
async fn sharing(report: &mut Report) {
    let mut gains =
        [(4, "at least 3"), (8, "at least 3"), (16, "at least 3")].map(|(relays, wanted)| (relays, wanted, Vec::new()));
    for _ in 0..3 {
        let one = shared_by(1).await;
        for (relays, _, gains) in &mut gains {
            gains.push(one / shared_by(*relays).await);
        }
    }
    for (relays, wanted, gains) in gains {
        report.add(&format!("postgres: {relays} relays / one, plugin waits 20 ms"), gains, "ratio", wanted);
    }
}

/// The seconds that this many relays take.
async fn shared_by(relays: usize) -> f64 {
    let database = Database::postgres().await;
    database.orders(20_000).await;
    let config = harness::command::config(
        &database.url,
        &[("OrderPlaced", "counts", "burst_count = 10\n[signals.OrderPlaced.settings]\ndelay_ms = 20")],
    );
    let project = harness::command::Project::new(database.folder(), &config);
    let begun = std::time::Instant::now();
    let relay =
        || project.command(&["flushmany"]).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn();
    let relays: Vec<_> = (0..relays).map(|_| relay().unwrap()).collect();
    for mut relay in relays {
        assert!(relay.wait().unwrap().success());
    }
    let seconds = begun.elapsed().as_secs_f64();
    database.discard().await;
    seconds
}

/// How much of its rate a signal type keeps beside another that is broken or has endless work. Its
/// plugin waits for its network, as plugins do: otherwise, on few cores, this would measure the
/// remaining processor time.
async fn neighbours(report: &mut Report) {
    let waits = "burst_count = 100\n[signals.Other.settings]\ndelay_ms = 10";
    for (name, guest, table, more) in [
        ("a plugin that traps", "traps", true, ""),
        ("a plugin that never ends", "spins", true, "timeout = \"1s\""),
        ("a table that vanishes", "sends", false, ""),
        ("an endless backlog", "counts", true, waits),
    ] {
        let mut kept = Vec::new();
        for _ in 0..3 {
            let alone = rate("", false).await;
            let other = section("Other", &harness::guest(guest), more);
            kept.push(rate(&other, table).await / alone);
        }
        report.add(&format!("postgres: rate beside {name} / alone"), kept, "ratio", "at least 0.9");
    }
}

/// Signals per second of a type, beside another one.
async fn rate(other: &str, table: bool) -> f64 {
    let database = Database::postgres().await;
    database.orders(400_000).await;
    database.run("CREATE TABLE other AS SELECT * FROM order_placed").await;
    database.run("ALTER TABLE other ADD PRIMARY KEY (id)").await;
    let waits = "burst_count = 100\n[signals.OrderPlaced.settings]\ndelay_ms = 10\n";
    let sections = section("OrderPlaced", &harness::guest("counts"), waits) + other;
    let relay = Running::spawn(&database, &sections, "");
    relay.witness.wait_for(1);
    if !table {
        database.run("DROP TABLE other").await;
    }
    let sent = || relay.metric("signalbus_sent_total{signal=\"OrderPlaced\"}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, begun) = (sent(), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rate = (sent() - before) / begun.elapsed().as_secs_f64();
    drop(relay);
    database.discard().await;
    rate
}

/// A hundred plugin swaps under load: each generation is compiled and checked while the previous one
/// sends.
async fn swaps(report: &mut Report) {
    const SWAPS: u32 = 100;
    let (mut pauses, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (_, alone) = pause(0, Duration::from_secs(8)).await;
        let (longest, rate) = pause(SWAPS, Duration::from_secs(8)).await;
        pauses.push(longest);
        kept.push(rate / alone);
    }
    report.add("postgres: longest time without a send in 100 swaps", pauses, "ms", "at most 100");
    report.add("postgres: rate under 12 swaps a second / without", kept, "ratio", "");
}

/// The longest time between two batches, in milliseconds, and the batches per second.
async fn pause(swaps: u32, time: Duration) -> (f64, f64) {
    let database = Database::postgres().await;
    database.orders(400_000).await;
    let plugin = harness::relay::plugin_file(&database, "counts");
    let waits = "burst_count = 100\n[signals.OrderPlaced.settings]\ndelay_ms = 10\n";
    let relay = Running::start(&database, &section("OrderPlaced", &plugin, waits));
    relay.witness.wait_for(1);
    let begun = now();
    for swap in 0..swaps {
        harness::relay::replace_by_edition(&plugin, "counts", swap);
        assert_eq!(relay.post("/api/v1/signals/OrderPlaced/plugin").status, 200);
        let due = begun + time.as_secs_f64() * f64::from(swap + 1) / f64::from(swaps);
        tokio::time::sleep(Duration::from_secs_f64((due - now()).max(0.0))).await;
    }
    if swaps == 0 {
        tokio::time::sleep(time).await;
    }
    let (text, took) = (relay.witness.text(), now() - begun);
    let mut calls: Vec<f64> = text.lines().filter(|line| line.contains("counted")).map(seconds_of_day).collect();
    calls.retain(|call| *call >= begun % 86_400.0);
    calls.sort_by(f64::total_cmp);
    let longest = calls.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    drop(relay);
    database.discard().await;
    (longest * 1000.0, calls.len() as f64 / took)
}

/// From the start of the process to the first call of the plugin, with its compiled code cached.
async fn starts(report: &mut Report) {
    let mut times = Vec::new();
    for _ in 0..7 {
        let database = Database::sqlite().await;
        database.orders(1).await;
        let begun = now();
        let relay = Running::spawn(&database, &section("OrderPlaced", &harness::guest("counts"), ""), "");
        relay.witness.wait_for(1);
        let text = relay.witness.text();
        let called = text.lines().find(|line| line.contains("counted")).map(seconds_of_day).unwrap();
        times.push((called - begun % 86_400.0) * 1000.0);
    }
    report.add("sqlite: start to first call", times, "ms", "at most 200");
}

/// Five plugins with nothing to do.
async fn idle(report: &mut Report) {
    let database = Database::postgres().await;
    let mut sections = String::new();
    for (n, guest) in ["counts", "sends", "echoes", "outcomes", "publishes"].iter().enumerate() {
        database.run(&format!("CREATE TABLE t{n} (id BIGINT PRIMARY KEY)")).await;
        sections += &section(&format!("T{n}"), &harness::guest(guest), "");
    }
    let relay = Running::start(&database, &sections);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    report.add("postgres: idle memory with five plugins", vec![kilobytes / 1000.0], "MB", "below 60");
}
