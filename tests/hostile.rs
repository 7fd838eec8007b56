//! Plugins and files made to harm: each costs its own signal type some delay, and nothing else.
//!
//! Every one of them runs beside a neighbour whose rows must all be sent, in a relay whose memory is measured.

mod collection;
mod files;
mod misuse;
mod parts;
mod rules;
mod shares;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::components::{self, component, with_section};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use crate::harness::{PATIENCE, pause};

/// The most memory that the relay may take for them, in KiB.
const MEMORY: u64 = 400_000;

/// A relay with the signal types `OrderPlaced` and `Bystander`, which sends through the guest `counts`.
struct Beside {
    database: Database,
    relay: Running,
}

impl Beside {
    /// Starts it with a plugin for `OrderPlaced`; `more` are further lines of its section.
    async fn start(plugin: &Path, more: &str) -> Self {
        let database = Database::sqlite().await;
        database.orders(20).await;
        let rows = database.series(500);
        database
            .run(&format!("CREATE TABLE bystander (id INTEGER PRIMARY KEY); INSERT INTO bystander SELECT i FROM {rows}"))
            .await;
        let signals = section("OrderPlaced", plugin, more) + &section("Bystander", &guest("counts"), "burst_count = 50");
        let relay = Running::spawn(&database, &signals, "");
        Self { database, relay }
    }

    /// Asserts that the neighbour works, within some seconds, and the relay takes little.
    async fn neighbour_works(&self) {
        let rows = self.database.series(100);
        self.database
            .run(&format!("INSERT INTO bystander SELECT 1000000 + i FROM {rows} WHERE true ON CONFLICT DO NOTHING"))
            .await;
        let begun = Instant::now();
        while self.database.count("bystander").await > 0 {
            assert!(begun.elapsed() < PATIENCE, "the neighbour stands still: {}", self.log());
            tokio::time::sleep(pause(begun)).await;
        }
        assert_eq!(self.relay.get("/healthz").status, 200);
        let peak = self.relay.peak_memory();
        assert!(peak < MEMORY, "the relay took {peak} KiB: {}", self.log());
    }

    /// Waits until the log has these words.
    fn wait_for(&self, words: &str) {
        let begun = Instant::now();
        while !self.relay.witness.text().contains(words) {
            assert!(begun.elapsed() < PATIENCE, "no \"{words}\": {}", self.log());
            std::thread::sleep(pause(begun));
        }
    }

    fn log(&self) -> String {
        self.relay.witness.text().chars().take(20_000).collect()
    }

    /// Stops the relay, which must obey.
    fn stop(self) {
        self.stop_within(Duration::from_secs(10));
    }

    fn stop_within(mut self, longest: Duration) {
        let begun = Instant::now();
        assert_eq!(self.relay.stop(), Some(0), "{}", self.log());
        assert!(begun.elapsed() < longest, "it took {:?} to stop", begun.elapsed());
    }
}

/// A name of C++ that means gigabytes: each of its parts is twice the part before.
fn long_name() -> String {
    let mut name = "_Z1f1AIiiE".to_owned();
    for n in 0..60_u32 {
        // The substitutions are counted in base 36.
        let digit = |n: u32| char::from_digit(n, 36).unwrap().to_ascii_uppercase();
        let number = if n < 36 { digit(n).to_string() } else { format!("{}{}", digit(n / 36), digit(n % 36)) };
        name += &format!("S_IS{number}_S{number}_E");
    }
    name
}

/// Debug information of many units that share a list of many ranges.
fn shared_ranges(module: Vec<u8>) -> Vec<u8> {
    let abbreviations = [1, 0x11, 0, 0x11, 0x01, 0x55, 0x17, 0, 0, 0];
    let unit = [16_u32.to_le_bytes().as_slice(), &4_u16.to_le_bytes(), &0_u32.to_le_bytes(), &[4, 1], &[0; 8]].concat();
    let range = |n: u32| [(2 * n).to_le_bytes(), (2 * n + 1).to_le_bytes()].concat();
    let ranges: Vec<u8> = (1..50_000).flat_map(range).chain([0; 8]).collect();
    let module = with_section(module, ".debug_abbrev", &abbreviations);
    let module = with_section(module, ".debug_info", &unit.repeat(20_000));
    with_section(module, ".debug_ranges", &ranges)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_debug_information_are_read_within_limits() {
    let folder = tempfile::TempDir::new().unwrap();
    let name = long_name();
    let crashes = |more: &str| {
        components::module("", &format!("(func ${name:?} unreachable) {more}"), &format!("(call ${name:?}) unreachable"))
    };
    for (what, module) in [
        ("name", crashes("")),
        ("start", crashes(&format!("(start ${name:?})"))),
        ("ranges", shared_ranges(components::module("", "", "unreachable"))),
    ] {
        let plugin = components::write(folder.path(), what, module);
        let beside = Beside::start(&plugin, "").await;
        beside.wait_for(if what == "start" { "does not start: plugin trapped" } else { "plugin stopped" });
        beside.neighbour_works().await;
        assert!(what == "start" || beside.relay.witness.text().contains("!send"), "{}", beside.log());
        beside.stop();
    }
}

/// Loops within loops, each of which changes a variable of its own: what to keep of them grows with their square.
fn tangle(loops: usize) -> Vec<u8> {
    let locals = "(local i32)".repeat(loops);
    let begin: String =
        (0..loops).map(|n| format!("(loop $l{n} (local.set {n} (i32.add (local.get {n}) (i32.const 1)))")).collect();
    let end: String = (0..loops).rev().map(|n| format!("(br_if $l{n} (local.get {n})))")).collect();
    let reads: String = (0..loops).map(|n| format!("(drop (local.get {n}))")).collect();
    components::module(
        "",
        &format!("(func $tangle (export \"tangle\") {locals} {begin} {end} {reads})"),
        "(call $sent (local.get $signals))",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_costly_to_compile_costs_nobody_else() {
    let folder = tempfile::TempDir::new().unwrap();
    let costly = component(tangle(10_000));
    let plugin = folder.path().join("plugin.wasm");
    std::fs::copy(guest("sends"), &plugin).unwrap();
    let beside = Beside::start(&plugin, "").await;
    beside.relay.wait_ready();
    beside.neighbour_works().await;
    let fresh = folder.path().join("fresh");
    std::fs::write(&fresh, &costly).unwrap();
    std::fs::rename(&fresh, &plugin).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    beside.neighbour_works().await;
    beside.wait_for("does not compile: it takes more than");
    beside.neighbour_works().await;
    beside.database.run("INSERT INTO order_placed SELECT 100000, 'a', 'b'").await;
    beside.relay.wait_empty(&beside.database, "order_placed").await;
    beside.stop();
}

/// Signal types whose plugins hold what they can get, beside one that only wants its share.
struct Crowd {
    database: Database,
    relay: Running,
}

impl Crowd {
    async fn start(number: usize, plugin: &Path, more: &str, neighbour: &Path) -> Self {
        let (database, signals) = Self::prepare(number, plugin, more, neighbour).await;
        Self { relay: Running::start(&database, &signals), database }
    }

    /// Returns a database, and the sections of the signal types.
    async fn prepare(number: usize, plugin: &Path, more: &str, neighbour: &Path) -> (Database, String) {
        let database = Database::sqlite().await;
        let mut signals = section("Bystander", neighbour, "burst_count = 50\nconcurrency = 1\ntimeout = '60s'");
        database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
        for n in 0..number {
            let rows = database.series(2000);
            database
                .run(&format!("CREATE TABLE crowd_{n} (id INTEGER PRIMARY KEY); INSERT INTO crowd_{n} SELECT i FROM {rows}"))
                .await;
            signals += &section(&format!("crowd_{n}"), plugin, &format!("table = 'crowd_{n}'\nburst_count = 5\n{more}"));
        }
        (database, signals)
    }

    /// Waits until so many rows of the neighbour are sent.
    async fn neighbour_sends(&self, rows: u32) {
        let series = self.database.series(rows);
        self.database.run(&format!("INSERT INTO bystander SELECT i FROM {series}")).await;
        let begun = Instant::now();
        while self.database.count("bystander").await > 0 {
            if begun.elapsed() > PATIENCE {
                let log: String = self.relay.witness.text().chars().take(5000).collect();
                let (ready, metrics) = (self.relay.get("/readyz").body, self.relay.get("/metrics").body);
                panic!("the neighbour stands still: {ready}\n{metrics}\n{log}");
            }
            tokio::time::sleep(pause(begun)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_wait_leave_room_for_others() {
    // Eight memories each, and a plugin that waits: the room is for 256.
    let folder = tempfile::TempDir::new().unwrap();
    let memories = "(memory 1)".repeat(7);
    let wide = components::module("", &memories, "(loop $again (br $again)) unreachable");
    let plugin = components::write(folder.path(), "wide", wide);
    for (number, plugin, more) in [(1, guest("sleeps"), "concurrency = 256"), (8, plugin, "concurrency = 8")] {
        let crowd = Crowd::start(number, &plugin, &format!("{more}\ntimeout = '60s'"), &guest("counts")).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        crowd.neighbour_sends(2000).await;
        let metrics = crowd.relay.get("/metrics").body;
        assert!(metrics.contains("signalbus_plugin_wait_seconds_count{"), "{metrics}");
    }
}

/// What the others hold meanwhile, they hold for longer than the test lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_loads_late_has_its_share() {
    let late = tempfile::TempDir::new().unwrap();
    let plugin = late.path().join("plugin.wasm");
    let (database, signals) = Crowd::prepare(1, &guest("sleeps"), "concurrency = 256\ntimeout = '15m'", &plugin).await;
    let crowd = Crowd { relay: Running::spawn(&database, &signals, ""), database };
    // A quarter of the room is kept.
    let called = || crowd.relay.witness.text().matches("called").count();
    crowd.relay.wait("the crowd does not take what it can get", || called() >= 192);
    std::fs::copy(guest("counts"), late.path().join("new")).unwrap();
    std::fs::rename(late.path().join("new"), &plugin).unwrap();
    crowd.neighbour_sends(2000).await;
}

/// A module that counts, so many times for each signal of a batch.
fn computes(times: u32) -> Vec<u8> {
    let count = format!(
        "(local $n i32) (local $most i32) (local.set $most (i32.mul (local.get $signals) (i32.const {times})))
         (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (local.get $most))))"
    );
    components::module("", "", &format!("{count} (call $sent (local.get $signals))"))
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_compute_leave_processors_to_others() {
    let folder = tempfile::TempDir::new().unwrap();
    // Some milliseconds, again and again; for ever; and a neighbour that computes for longer than a tick.
    let short = components::write(folder.path(), "short", computes(800_000));
    let endless =
        components::write(folder.path(), "endless", components::module("", "", "(loop $again (br $again)) unreachable"));
    let neighbour = components::write(folder.path(), "neighbour", computes(600_000));
    // (With short calls, workers without number would queue for the database.)
    for (plugin, concurrency) in [(short, 2), (endless, 14)] {
        let more = format!("concurrency = {concurrency}\ntimeout = '30s'");
        let crowd = Crowd::start(15, &plugin, &more, &neighbour).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = crowd.relay.processor_time();
        crowd.neighbour_sends(1000).await;
        // In turns with all calls of the others, it would be a hundred seconds and more.
        let took = crowd.relay.processor_time() - before;
        assert!(took < Duration::from_secs(30), "beside the neighbour's calls, others took {took:?} of processor time");
        let log = crowd.relay.witness.text();
        assert!(!log.contains("signal_type=\"Bystander\" signals="), "it failed: {}", log.chars().take(3000).collect::<String>());
    }
}
