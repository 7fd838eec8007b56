//! The flush commands: which signals they send, how often, and in which order.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::command::{Project, Said, config, terminate};
use crate::harness::database::Database;
use crate::harness::witness::Witness;
use crate::harness::{PATIENCE, pause};
use crate::on_each_database;

fn project(database: &Database, more: &str) -> Project {
    Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "counts", more)]))
}

async fn left(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM order_placed").await
}

async fn claims(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_inserted_during_the_wait_are_not_sent() {
    let database = Database::sqlite().await;
    database.orders(5).await;
    let project = project(&database, "");
    let witness = Witness::new(database.folder());
    let mut command = project.command(&["flush", "-w", "1"]);
    command.env("RUST_LOG", "info,signalbus=debug").stdout(Stdio::piped()).stderr(witness.stderr());
    let flush = command.spawn().unwrap();
    witness.wait_until("waiting before the flush");
    database.run("INSERT INTO order_placed VALUES (6, 'late', 'x'); DELETE FROM order_placed WHERE id = 2").await;
    assert_eq!(witness.order(), [""; 0], "signals were sent during the wait");
    let said = Said::from(flush.wait_with_output().unwrap());
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 4, deferred 0, buried 0\n"));
    assert_eq!(database.number("SELECT id FROM order_placed").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_outbox_skips_the_wait() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let begun = Instant::now();
    assert_eq!(project(&database, "").ok(&["flush", "-w", "60"]), "sent 0, deferred 0, buried 0\n");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_exclusions_select_signal_types() {
    let database = Database::sqlite().await;
    for table in ["a", "b", "c"] {
        database.run(&format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY); INSERT INTO {table} VALUES (1)")).await;
    }
    let signals = [("A", "sends", ""), ("B", "sends", ""), ("C", "sends", "")];
    let project = Project::new(database.folder(), &config(&database.url, &signals));
    let sent = |args: &[&str]| {
        let told = project.run(args).json();
        let types = told["signals"].as_array().unwrap().iter().filter(|part| part["sent"] == 1);
        types.map(|part| part["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&["flush", "-w", "-1", "--json", "-e", "A", "-e", "C"]), ["B"]);
    assert_eq!(sent(&["flushmany", "--json", "A", "C", "--exclude", "A"]), ["C"]);
    assert_eq!(sent(&["flushordered", "--json", "B", "-e", "B"]), [""; 0]);
    assert_eq!(sent(&["flushordered", "--json"]), ["A"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_type_may_wait_behind_its_dead_letters() {
    let database = Database::sqlite().await;
    database.run("CREATE TABLE order_placed (id INTEGER PRIMARY KEY, customer TEXT, payload TEXT)").await;
    database
        .run("INSERT INTO order_placed VALUES (1, 'a', 'sent'), (2, 'a', 'reject'), (3, 'a', 'sent'), (4, 'b', 'sent'), (5, 'a', 'sent')")
        .await;
    let order = "order_by = ['id']\norder_key = ['customer']\non_dead = 'hold'";
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "outcomes", order)]));
    let flush = || project.run(&["flush", "-w", "0"]).stdout;
    assert_eq!(flush(), "sent 2, deferred 0, buried 1\n");
    assert_eq!(flush(), "sent 0, deferred 0, buried 0\n");
    project.ok(&["dead", "discard", "--all"]);
    assert_eq!(flush(), "sent 2, deferred 0, buried 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_flush_runs_until_told_to_stop() {
    let database = Database::sqlite().await;
    database.orders(3).await;
    let project = project(&database, "");
    let witness = Witness::new(database.folder());
    let flush = project.command(&["flush", "-w", "0", "-r", "0.05"]).stderr(witness.stderr()).spawn().unwrap();
    witness.wait_for(3);
    database.run("INSERT INTO order_placed VALUES (4, 'late', 'x')").await;
    witness.wait_for(4);
    terminate(&flush);
    assert!(flush.wait_with_output().unwrap().status.success());
    assert_eq!((left(&database).await, claims(&database).await, witness.all_sent(4)), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_flush_continues_after_an_outage() {
    let database = Database::sqlite().await;
    database.orders(1).await;
    database.run("UPDATE order_placed SET payload = 'unavailable'").await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "outcomes", "")]));
    let witness = Witness::new(database.folder());
    let flush = project.command(&["flushmany", "-r", "0.05"]).stderr(witness.stderr()).spawn().unwrap();
    witness.wait_until("told to be unavailable");
    database.run("UPDATE order_placed SET payload = 'sent'").await;
    let begun = Instant::now();
    while left(&database).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", witness.text());
        tokio::time::sleep(pause(begun)).await;
    }
    terminate(&flush);
    assert!(flush.wait_with_output().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_retried_until_it_becomes_a_dead_letter() {
    let database = Database::sqlite().await;
    database.orders(2).await;
    let more = "[signals.OrderPlaced.retry]\nmax_attempts = 3\nbackoff = { first = '1ms', max = '2ms' }";
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "retries", more)]));
    let begun = Instant::now();
    while database.waiting().await > 0 {
        assert_eq!(project.run(&["flushmany"]).status, 1);
        assert!(begun.elapsed() < PATIENCE);
    }
    let letters = project.run(&["dead", "list", "--json"]).json();
    for letter in letters["dead_letters"].as_array().unwrap() {
        assert_eq!(letter["attempts"], 3);
        let reason = letter["reason"].as_str().unwrap();
        assert!(reason.ends_with(" (attempt 3 of 3)"), "{reason}");
    }
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn flushordered_also_sends_types_without_an_order() {
    let database = Database::sqlite().await;
    database.orders(10).await;
    assert_eq!(project(&database, "").ok(&["flushordered"]), "sent 10, deferred 0, buried 0\n");
}

/// Fills `order_placed`, with a `position` that descends as the primary key ascends, and 7 customers.
async fn ordered(database: &Database, rows: u32) {
    database.orders(rows).await;
    database.run("ALTER TABLE order_placed ADD COLUMN position BIGINT").await;
    database.run(&format!("UPDATE order_placed SET position = {rows} + 1 - id")).await;
    database.run("CREATE INDEX by_position ON order_placed (position)").await;
}

/// The numbers of the signals, in the order they were sent.
fn sent(witness: &Witness) -> Vec<u32> {
    witness.order().iter().map(|id| id.trim_start_matches("OrderPlaced:").parse().unwrap()).collect()
}

mod cases {
    use super::*;

    pub async fn three_processes_send_each_signal_once(database: Database) {
        const ROWS: u32 = 20_000;
        database.orders(ROWS).await;
        let project = project(&database, "burst_count = 250");
        let witness = Witness::new(database.folder());
        let flush = |_| {
            let mut command = project.command(&["flushmany", "--json"]);
            command.stdout(Stdio::piped()).stderr(witness.stderr()).spawn().unwrap()
        };
        let processes: Vec<_> = (0..3).map(flush).collect();
        let mut total = 0;
        for process in processes {
            let said = Said::from(process.wait_with_output().unwrap());
            assert_eq!(said.status, 0, "{said:#?}");
            total += said.json()["sent"].as_u64().unwrap();
        }
        assert_eq!((left(&database).await, claims(&database).await), (0, 0));
        assert_eq!((witness.all_sent(ROWS), total), (0, ROWS.into()));
    }

    pub async fn order_by_is_kept_by_two_processes(database: Database) {
        const ROWS: u32 = 600;
        ordered(&database, ROWS).await;
        let project = project(&database, "burst_count = 40\norder_by = ['position']");
        let witness = Witness::new(database.folder());
        let flush = |_| project.command(&["flushordered"]).stderr(witness.stderr()).spawn().unwrap();
        let processes: Vec<_> = (0..2).map(flush).collect();
        for process in processes {
            assert!(process.wait_with_output().unwrap().status.success(), "{}", witness.text());
        }
        assert_eq!(left(&database).await, 0);
        assert!(sent(&witness).into_iter().eq((1..=ROWS).rev()), "{:?}", sent(&witness));
    }

    pub async fn order_key_is_kept_by_two_processes(database: Database) {
        const ROWS: u32 = 600;
        ordered(&database, ROWS).await;
        let project = project(&database, "burst_count = 30\norder_by = ['position']\norder_key = ['customer']");
        let witness = Witness::new(database.folder());
        let flush = |_| project.command(&["flushordered"]).stderr(witness.stderr()).spawn().unwrap();
        let processes: Vec<_> = (0..2).map(flush).collect();
        for process in processes {
            assert!(process.wait_with_output().unwrap().status.success(), "{}", witness.text());
        }
        assert_eq!((left(&database).await, witness.all_sent(ROWS)), (0, 0));
        for customer in 0..7 {
            let own: Vec<u32> = sent(&witness).into_iter().filter(|id| id % 7 == customer).collect();
            assert!(own.is_sorted_by(|a, b| a > b), "customer {customer}: {own:?}");
        }
    }
}

on_each_database!(three_processes_send_each_signal_once, order_by_is_kept_by_two_processes, order_key_is_kept_by_two_processes);

#[tokio::test(flavor = "multi_thread")]
async fn order_by_can_descend() {
    let database = Database::sqlite().await;
    ordered(&database, 100).await;
    let project = project(&database, "burst_count = 7\norder_by = ['position desc']");
    let witness = Witness::new(database.folder());
    assert!(project.command(&["flushordered"]).stderr(witness.stderr()).status().unwrap().success());
    assert!(sent(&witness).into_iter().eq(1..=100), "{:?}", sent(&witness));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_signal_holds_back_its_own_key_alone() {
    let database = Database::sqlite().await;
    database.orders(70).await;
    database.run("UPDATE order_placed SET payload = CASE id WHEN 10 THEN 'retry' ELSE 'sent' END").await;
    let by_key = "burst_count = 5\norder_by = ['id']\norder_key = ['customer']\n\
                  [signals.OrderPlaced.retry]\nbackoff = { first = '1h', max = '1h' }";
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "outcomes", by_key)]));
    let said = project.run(&["flushordered"]);
    assert_eq!((said.status, said.stdout.as_str()), (1, "sent 61, deferred 1, buried 0\n"), "{said:#?}");
    assert_eq!(database.number("SELECT count(*) FROM order_placed WHERE customer = 'customer 3'").await, left(&database).await);
    // Nothing is due, which is not a failure.
    assert_eq!(project.ok(&["flushordered"]), "sent 0, deferred 0, buried 0\n");
}
