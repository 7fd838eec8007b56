//! Configuration reloads: signal types are added, changed and removed.

use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use crate::harness::{PATIENCE, pause};
use crate::on_each_database;

fn types(relay: &Running) -> Vec<String> {
    let status = relay.get("/api/v1/status").json();
    status["signals"].as_array().unwrap().iter().map(|signal| signal["type"].as_str().unwrap().to_owned()).collect()
}

async fn table(database: &Database, name: &str) {
    let text = database.either("TEXT", "TEXT", "VARCHAR(50)");
    database.run(&format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY, note {text})")).await;
}

async fn until_empty(database: &Database, name: &str, relay: &Running) {
    let begun = std::time::Instant::now();
    while database.number(&format!("SELECT count(*) FROM {name}")).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(pause(begun)).await;
    }
}

mod cases {
    use super::*;

    pub async fn types_are_added_changed_and_removed(database: Database) {
        for name in ["a", "b", "c"] {
            table(&database, name).await;
        }
        let counts = guest("counts");
        let mut relay = Running::start(&database, &(section("A", &counts, "") + &section("B", &counts, "")));
        let untouched = relay.status_of("A")["plugin"]["history"].clone();
        relay.configure(&database, &(section("A", &counts, "") + &section("C", &guest("counts_too"), "burst_count = 1")));
        relay.signal("HUP");
        relay.wait("the configuration was not reloaded", || types(&relay) == ["A", "C"]);
        assert_eq!(relay.status_of("A")["plugin"]["history"], untouched, "an unchanged type was restarted");
        for name in ["a", "b", "c"] {
            database.run(&format!("INSERT INTO {name} VALUES (1, 'x'), (2, 'x')")).await;
        }
        until_empty(&database, "a", &relay).await;
        until_empty(&database, "c", &relay).await;
        assert_eq!(database.number("SELECT count(*) FROM b").await, 2);
        // Two signals per batch instead of one.
        relay.configure(&database, &(section("B", &counts, "") + &section("C", &counts, "burst_count = 2")));
        relay.signal("HUP");
        relay.wait("the configuration was not reloaded", || types(&relay) == ["B", "C"]);
        until_empty(&database, "b", &relay).await;
        database.run("INSERT INTO c VALUES (3, 'x'), (4, 'x')").await;
        until_empty(&database, "c", &relay).await;
        assert_eq!(relay.stop(), Some(0));
        assert!(relay.witness.order().ends_with(&["C:3".into(), "C:4".into()]), "{}", relay.witness.text());
        assert!(relay.witness.counts().values().all(|count| *count == 1));
    }
}

on_each_database!(types_are_added_changed_and_removed);

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_changes_nothing() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let counts = guest("counts");
    let relay = Running::start(&database, &section("OrderPlaced", &counts, ""));
    let bad = [
        (section("OrderPlaced", &counts, "burst_cuont = 3"), "did you mean \\\"burst_count\\\"?"),
        (section("OrderPlaced", &counts, "") + &section("B", &counts, ""), "table \\\"b\\\" does not exist"),
        (
            section("OrderPlaced", &counts, "timeout = \"5s\"")
                + &section("B", &guest("sends"), "table = \"order_placed\"\ndigest = \"sha256:00\""),
            "is configured: restore the file",
        ),
    ];
    for (round, (signals, words)) in bad.into_iter().enumerate() {
        relay.configure(&database, &signals);
        relay.signal("HUP");
        relay.witness.wait_until(words);
        let refused = "signalbus_reloads_total{result=\"refused\"}";
        relay.wait("the metric was not updated", || relay.metric(refused) >= f64::from(u32::try_from(round).unwrap() + 1));
        assert_eq!(types(&relay), ["OrderPlaced"]);
    }
    database.run("INSERT INTO order_placed VALUES (1, 'c', 'p')").await;
    until_empty(&database, "order_placed", &relay).await;
    // Settings that cannot change at run time are reported, too.
    let other = Database::sqlite().await;
    relay.configure(&other, &section("OrderPlaced", &counts, ""));
    relay.signal("HUP");
    relay.witness.wait_until("cannot change while the relay runs");
}
