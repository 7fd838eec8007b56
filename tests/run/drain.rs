//! Draining: what is in flight is settled, nothing is sent twice, and no claim is left.

use std::time::{Duration, Instant};

use crate::harness::database::Database;
use crate::harness::relay::{Running, section};
use crate::harness::{PATIENCE, pause};
use crate::harness::{amount, guest};
use crate::on_each_database;

const SLOW: &str = "burst_count = 10\nconcurrency = 2\n[signals.OrderPlaced.settings]\ndelay_ms = 20";

mod cases {
    use super::*;

    /// Restarts under load, as in deployments, with different signals.
    pub async fn rolling_restarts_send_nothing_twice(database: Database) {
        let rounds = amount(40, 500);
        let rows = rounds * 500;
        database.orders(rows).await;
        let mut relay = Running::spawn(&database, &section("OrderPlaced", &guest("counts"), SLOW), "");
        for round in 0..rounds {
            let before = relay.witness.counts().len();
            relay.witness.wait_for(before + 20);
            relay.signal(if round % 2 == 0 { "TERM" } else { "INT" });
            let ended = relay.ended();
            assert_eq!(ended, Some(0), "round {round}: {}", relay.witness.text());
            assert_eq!(database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0);
            relay.again();
        }
        relay.wait_ready();
        assert_eq!(relay.stop(), Some(0));
        let counts = relay.witness.counts();
        assert!(counts.values().all(|count| *count == 1), "sent twice");
        let left = database.number("SELECT count(*) FROM order_placed").await;
        assert_eq!(left + i64::try_from(counts.len()).unwrap(), i64::from(rows));
    }
}

on_each_database!(rolling_restarts_send_nothing_twice);

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_ends_a_drain() {
    let database = Database::sqlite().await;
    database.orders(1).await;
    let more = "timeout = \"100s\"";
    let mut relay = Running::spawn(&database, &section("OrderPlaced", &guest("sleeps"), more), "");
    relay.kill();
    let child = relay.project.command(&["run", "--grace", "0.5"]).stderr(relay.witness.stderr()).spawn().unwrap();
    // Once it is claimed, a stop may still come before the call.
    relay.witness.wait_until("called");
    let begun = Instant::now();
    crate::harness::command::terminate(&child);
    let status = child.wait_with_output().unwrap().status.code();
    assert_eq!(status, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(relay.witness.text().contains("did not finish within 500ms"), "{}", relay.witness.text());
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_pipe_does_not_stop_the_relay() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let mut relay = Running::spawn(&database, &section("OrderPlaced", &guest("counts"), ""), "");
    relay.kill();
    let mut child = relay.project.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    relay.wait_ready();
    database.run("INSERT INTO order_placed VALUES (1, 'c', 'p')").await;
    let begun = Instant::now();
    while database.number("SELECT count(*) FROM order_placed").await > 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(pause(begun)).await;
    }
    crate::harness::command::terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
