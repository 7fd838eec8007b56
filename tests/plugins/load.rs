//! Load: many signals in batches of a thousand (a million with `make soak`). Garbage collection must not break
//! a call, and memory must not grow.

use std::time::Duration;

use redis::AsyncTypedCommands as _;

use super::in_each_language;
use crate::harness::amount;
use crate::harness::broker::{Broker, Kind};
use crate::harness::command::Project;
use crate::harness::database::Database;

/// Returns the resident memory of a process in megabytes.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes >> 10)
}

async fn memory_does_not_grow_with_the_backlog(language: &str) {
    let rows = amount(60_000, 1_000_000);
    let broker = Broker::start(Kind::Redis, "appendonly no\nsave \"\"");
    let database = Database::sqlite().await;
    database
        .run(&format!(
            "CREATE TABLE order_placed (id INTEGER PRIMARY KEY, customer TEXT, total NUMERIC, photo BLOB, placed TEXT, note TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO order_placed SELECT i + (1 << 53), 'Zażółć ' || i, i * 0.25, randomblob(64), '2026-02-28', NULL FROM n"
        ))
        .await;
    let config = format!(
        "[database]\nurl = {:?}\n[connections.bus]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {:?}\nburst_count = 1000\n\
         grants = {{ connections = ['bus'] }}\nsettings = {{ connection = 'bus', destination = 'orders' }}\n",
        database.url,
        broker.url(),
        super::sample(language),
    );
    let project = Project::new(database.folder(), &config);
    // What is compiled already does not count as a part of the run.
    project.ok(&["check"]);
    let mut running = project.command(&["flushmany"]);
    // The log goes to a file, because nobody reads a pipe meanwhile.
    let log = database.folder().join("log");
    let mut running = running.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut held = Vec::new();
    while running.try_wait().unwrap().is_none() {
        held.extend(resident(running.id()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = std::fs::read_to_string(&log).unwrap();
    let said = &said[said.floor_char_boundary(said.len().saturating_sub(4000))..];
    assert!(running.wait().unwrap().success(), "{said}");
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0, "{said}");
    let sent = broker.redis().await.xlen("orders").await.unwrap();
    assert_eq!(sent, rows as usize, "{said}");
    // A tenth of the load fills the pools; after that, memory must not grow.
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (early, late) = (most(&held[..held.len() / 2]), most(&held[held.len() / 2..]));
    println!("{language}: {} MB at most in the first half, {} MB in the second", early, late);
    assert!(late <= early + early / 5 + 16, "memory grows from {early} to {late} MB: {held:?}");
}

in_each_language!(memory_does_not_grow_with_the_backlog: rust, c, go, python, javascript);
