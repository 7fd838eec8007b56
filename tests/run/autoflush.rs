//! Autoflush: signals are sent soon after their commit, and an idle relay costs little.

use crate::harness::database::{Database, System};
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use crate::harness::{PATIENCE, pause};
use crate::on_each_database;

async fn insert(database: &Database, ids: std::ops::RangeInclusive<u32>) {
    let rows: Vec<String> = ids.map(|id| format!("({id}, 'c', 'p')")).collect();
    database.run(&format!("INSERT INTO order_placed VALUES {}", rows.join(", "))).await;
}

async fn is_empty(database: &Database) -> bool {
    database.waiting().await == 0
}

async fn until_empty(database: &Database, relay: &Running) {
    let begun = std::time::Instant::now();
    while !is_empty(database).await {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(pause(begun)).await;
    }
}

mod cases {
    use super::*;

    pub async fn signals_are_sent_as_they_arrive(database: Database) {
        database.orders(100).await;
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
        until_empty(&database, &relay).await;
        for round in 0..5 {
            insert(&database, 1000 + round * 10..=1009 + round * 10).await;
            until_empty(&database, &relay).await;
        }
        assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
        assert_eq!(relay.witness.counts().len(), 150);
        assert!(relay.witness.counts().values().all(|count| *count == 1));
        assert_eq!(database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0);
    }

    /// Keys in no particular order, also below those already sent.
    pub async fn random_keys_are_found(database: Database) {
        let key = database.either("TEXT", "TEXT", "VARCHAR(50)");
        database.run(&format!("CREATE TABLE order_placed (id {key} PRIMARY KEY, customer {key}, payload {key})")).await;
        let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
        for key in ["m", "z", "a", "n", "b", "zz", "0"] {
            database.run(&format!("INSERT INTO order_placed VALUES ('{key}', 'c', 'p')")).await;
            until_empty(&database, &relay).await;
        }
        assert_eq!(relay.witness.order().len(), 7);
    }

    pub async fn a_deferred_signal_is_retried_when_due(database: Database) {
        database.orders(0).await;
        let more = "[signals.OrderPlaced.settings]\nafter_ms = 300\n[signals.OrderPlaced.retry]\nmax_attempts = 3";
        let relay = Running::start(&database, &section("OrderPlaced", &guest("retries"), more));
        insert(&database, 1..=1).await;
        until_empty(&database, &relay).await;
        assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead' AND attempts = 3").await, 1);
        assert_eq!(relay.metric("signalbus_buried_total{signal=\"OrderPlaced\"}"), 1.0);
    }

    pub async fn types_without_autoflush_are_left_alone(database: Database) {
        database.orders(3).await;
        let sections =
            section("OrderPlaced", &guest("counts"), "autoflush = false") + &section("B", &guest("counts"), "table = \"b\"");
        let text = database.either("TEXT", "TEXT", "VARCHAR(50)");
        database.run(&format!("CREATE TABLE b (id BIGINT PRIMARY KEY, note {text})")).await;
        let relay = Running::start(&database, &sections);
        database.run("INSERT INTO b VALUES (1, 'x')").await;
        relay.witness.wait_for(1);
        assert_eq!(relay.witness.order(), ["B:1"]);
        assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 3);
    }
}

on_each_database!(
    signals_are_sent_as_they_arrive,
    random_keys_are_found,
    a_deferred_signal_is_retried_when_due,
    types_without_autoflush_are_left_alone,
);

#[tokio::test(flavor = "multi_thread")]
async fn notifications_replace_polling() {
    let database = Database::postgres().await;
    database.orders(0).await;
    let relay = Running::spawn(&database, &section("OrderPlaced", &guest("counts"), ""), "");
    let created = relay.project.ok(&["migrate", "--notify"]);
    assert!(created.contains("triggers `signalbus_notify` created on 1 tables"), "{created}");
    drop(relay);
    let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    relay.witness.wait_until("the database announces commits");
    insert(&database, 1..=5).await;
    until_empty(&database, &relay).await;
    assert!(relay.metric("signalbus_wakeups_total{source=\"commit\"}") >= 1.0);
    // Repeating it is harmless.
    relay.project.ok(&["migrate", "--notify"]);
    let said = relay.project.run(&["migrate", "--notify", "--print"]);
    assert!(said.stdout.contains("CREATE TRIGGER signalbus_notify AFTER INSERT ON \"order_placed\""), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_postgres_has_notifications() {
    for database in [Database::sqlite().await, Database::mariadb().await] {
        database.orders(0).await;
        let relay = Running::spawn(&database, &section("OrderPlaced", &guest("sends"), ""), "");
        let said = relay.project.run(&["migrate", "--notify"]);
        assert_eq!(said.status, 64, "{said:#?}");
        assert!(said.stderr.contains("PostgreSQL"), "{said:#?}");
        assert!(matches!(database.system, System::Sqlite | System::Mariadb));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_commits_are_detected_in_the_write_ahead_log() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    relay.witness.wait_until("the database announces commits");
    for id in 1..=20 {
        insert(&database, id..=id).await;
        until_empty(&database, &relay).await;
    }
    assert!(relay.metric("signalbus_wakeups_total{source=\"commit\"}") >= 10.0, "{}", relay.get("/metrics").body);
}
