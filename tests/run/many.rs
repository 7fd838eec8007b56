//! Several relays on one database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::harness::command::terminate;
use crate::harness::database::Database;
use crate::harness::relay::{Running, Sibling, section};
use crate::harness::{PATIENCE, pause};
use crate::harness::{amount, guest};
use crate::on_each_database;

async fn until_empty(database: &Database, relay: &Running) {
    let begun = Instant::now();
    while database.number("SELECT count(*) FROM order_placed").await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(1200), "{}", relay.witness.text());
        tokio::time::sleep(pause(begun)).await;
    }
}

fn stop(mut siblings: Vec<Sibling>) {
    siblings.iter().for_each(|sibling| terminate(&sibling.0));
    for sibling in &mut siblings {
        assert_eq!(sibling.0.wait().unwrap().code(), Some(0));
    }
}

mod cases {
    use super::*;

    pub async fn four_relays_send_nothing_twice(database: Database) {
        const ROWS: u32 = 10_000;
        database.orders(0).await;
        let more = "burst_count = 20\n[signals.OrderPlaced.settings]\ndelay_ms = 10";
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), more));
        let siblings: Vec<Sibling> = (0..3).map(|_| relay.sibling()).collect();
        for part in 0..10 {
            let (from, to) = (part * ROWS / 10 + 1, (part + 1) * ROWS / 10);
            let source = database.series(ROWS / 10);
            database.run(&format!("INSERT INTO order_placed SELECT i + {from} - 1, 'c', 'p' FROM {source}")).await;
            assert!(to <= ROWS);
        }
        until_empty(&database, &relay).await;
        stop(siblings);
        assert_eq!(relay.stop(), Some(0));
        assert_eq!(relay.witness.all_sent(ROWS), 0, "sent twice");
        assert_eq!(database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0);
    }

    /// A relay is killed during its batches, and another one finishes them.
    pub async fn a_dead_relays_claims_are_taken_over(database: Database) {
        database.orders(40).await;
        let more = "burst_count = 10\nconcurrency = 1\n[signals.OrderPlaced.settings]\ndelay_ms = 60000";
        let mut relay =
            Running::spawn(&database, &section("OrderPlaced", &guest("counts"), &format!("timeout = \"100s\"\n{more}")), "");
        let begun = Instant::now();
        while database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await == 0 {
            assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
            tokio::time::sleep(pause(begun)).await;
        }
        relay.kill();
        relay.configure(&database, &section("OrderPlaced", &guest("counts"), "burst_count = 10"));
        relay.again();
        let begun = Instant::now();
        relay.wait_ready();
        until_empty(&database, &relay).await;
        assert!(begun.elapsed() < Duration::from_secs(14), "it took {:?}", begun.elapsed());
        assert_eq!(relay.witness.all_sent(40), 0);
        assert_eq!(relay.metric("signalbus_takeovers_total{signal=\"OrderPlaced\"}"), 1.0);
        assert_eq!(relay.metric("signalbus_duplicates_suspected_total{signal=\"OrderPlaced\"}"), 10.0);
    }

    /// Relays are killed, rows commit late and signals are retried; within a key, no signal is sent before
    /// its predecessors.
    pub async fn order_within_a_key_survives_everything(database: Database) {
        let (rows, keys) = (amount(6000, 1_000_000), amount(60, 1000));
        let text = database.either("TEXT", "TEXT", "VARCHAR(50)");
        database.run(&format!("CREATE TABLE order_placed (id BIGINT PRIMARY KEY, customer {text}, payload {text})")).await;
        let more = "burst_count = 50\nconcurrency = 3\norder_by = [\"id\"]\norder_key = [\"customer\"]\n\
                    [signals.OrderPlaced.retry.backoff]\nfirst = \"30ms\"\nmax = \"30ms\"";
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("stumbles"), more));
        let mut siblings = vec![relay.sibling(), relay.sibling()];
        let mut random = fastrand::Rng::with_seed(11);
        // Rows appear in order within a key, but not across keys.
        let mut next: Vec<u32> = (0..keys).collect();
        let (mut rounds, kill_every) = (0, amount(6, 12));
        while next.iter().any(|id| *id < rows) {
            let mut batch = Vec::new();
            for id in &mut next {
                for _ in 0..random.u32(0..8) {
                    if *id < rows {
                        batch.push(format!("({id}, 'customer {}', 'p')", *id % keys));
                        *id += keys;
                    }
                }
            }
            if !batch.is_empty() {
                database.run(&format!("INSERT INTO order_placed VALUES {}", batch.join(", "))).await;
            }
            rounds += 1;
            if rounds % kill_every == 0 {
                drop(siblings.remove(0));
                siblings.push(relay.sibling());
            }
        }
        until_empty(&database, &relay).await;
        stop(siblings);
        assert_eq!(relay.stop(), Some(0));
        let mut last: HashMap<u32, u32> = HashMap::new();
        for id in relay.witness.order() {
            let id: u32 = id.strip_prefix("OrderPlaced:").unwrap().parse().unwrap();
            // Signals sent twice start again further back; there must be no gap.
            let before = id.checked_sub(keys);
            assert!(before <= last.get(&(id % keys)).copied(), "{id} was sent before {before:?}");
            let highest = last.entry(id % keys).or_insert(id);
            *highest = id.max(*highest);
        }
        let ends: Vec<u32> = (0..keys).map(|key| last[&key]).collect();
        assert!(ends.iter().all(|id| *id >= rows - keys), "{ends:?}");
    }
}

on_each_database!(four_relays_send_nothing_twice, a_dead_relays_claims_are_taken_over, order_within_a_key_survives_everything,);
