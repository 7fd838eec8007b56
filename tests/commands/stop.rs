//! Stopping: work in flight is finished and settled, nothing is sent twice, and no claim stays behind.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::harness::command::{Project, config, send, terminate};
use crate::harness::database::Database;
use crate::harness::witness::Witness;
use crate::on_each_database;

async fn claims(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await
}

async fn left(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM order_placed").await
}

mod cases {
    use super::*;

    pub async fn sigterm_drains(database: Database) {
        const ROWS: u32 = 400;
        database.orders(ROWS).await;
        let more = "burst_count = 10\nconcurrency = 2\n[signals.OrderPlaced.settings]\ndelay_ms = 100";
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "counts", more)]));
        let witness = Witness::new(database.folder());
        let flush = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
        witness.wait_for(30);
        terminate(&flush);
        let ended = flush.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", witness.text());
        let sent = witness.counts().len();
        assert!(sent < ROWS as usize, "the flush ended before it was stopped");
        assert_eq!((claims(&database).await, left(&database).await), (0, i64::from(ROWS) - i64::try_from(sent).unwrap()));
        assert!(project.command(&["flushmany"]).stderr(witness.stderr()).status().unwrap().success());
        assert_eq!((left(&database).await, witness.all_sent(ROWS)), (0, 0));
    }
}

on_each_database!(sigterm_drains);

/// Starts a flush, and returns while its plugin is in a call that does not answer.
async fn stuck(guest: &str, timeout: &str) -> (Database, Child) {
    let database = Database::sqlite().await;
    database.orders(1).await;
    let more = format!("timeout = {timeout:?}");
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", guest, &more)]));
    let witness = Witness::new(database.folder());
    let flush = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
    // Between the claim and the call a stop would begin no call.
    witness.wait_until("called");
    (database, flush)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_plugins_deadline() {
    for guest in ["sleeps", "spins"] {
        let (database, flush) = stuck(guest, "2s").await;
        terminate(&flush);
        let ended = flush.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), claims(&database).await, left(&database).await), (Some(0), 0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_exits_at_once() {
    for guest in ["sleeps", "spins"] {
        let (database, mut flush) = stuck(guest, "100s").await;
        let begun = Instant::now();
        terminate(&flush);
        std::thread::sleep(Duration::from_millis(300));
        assert!(flush.try_wait().unwrap().is_none(), "the first signal ended the process");
        terminate(&flush);
        assert_eq!(flush.wait().unwrap().code(), Some(130));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(left(&database).await, 1);
    }
}

/// A call that failed in a used instance is repeated in a fresh one, but not once the relay is stopping.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_repeated_after_a_stop() {
    let database = Database::sqlite().await;
    database.orders(3).await;
    database.run("UPDATE order_placed SET payload = CASE id WHEN 2 THEN 'break' WHEN 3 THEN 'late' END WHERE id > 1").await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "remembers", "order_by = ['id']")]));
    let witness = Witness::new(database.folder());
    let flush = project.command(&["flush", "-w", "0"]).stderr(witness.stderr()).spawn().unwrap();
    witness.wait_until("will panic");
    terminate(&flush);
    let ended = flush.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), claims(&database).await, left(&database).await), (Some(0), 0, 3), "{}", witness.text());
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
    assert!(project.command(&["flush", "-w", "0"]).status().unwrap().success());
    assert_eq!(left(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_cuts_the_wait_short() {
    let database = Database::sqlite().await;
    database.orders(1).await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "counts", "")]));
    let witness = Witness::new(database.folder());
    for (signal, args) in [("TERM", &["flush", "-w", "100"][..]), ("INT", &["flush", "-w", "100", "-r", "100"])] {
        let mut command = project.command(args);
        let flush = command.env("RUST_LOG", "signalbus=debug").stderr(witness.stderr()).spawn().unwrap();
        witness.wait_until("waiting before the flush");
        std::fs::remove_file(database.folder().join("witness.log")).unwrap();
        let begun = Instant::now();
        send(&flush, signal);
        assert_eq!(flush.wait_with_output().unwrap().status.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!((left(&database).await, witness.order()), (1, vec![]));
    }
}
