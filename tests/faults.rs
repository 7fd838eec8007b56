//! Nothing is lost when relays or servers are killed, disks fill up or tables disappear.

use std::process::Stdio;
use std::time::Duration;

use crate::harness::command::{Project, Said};
use crate::harness::database::{Database, System};
use crate::harness::disk::Disk;
use crate::harness::server::{Kind, Server};
use crate::harness::witness::Witness;
use crate::on_each_database;

const BATCH: u32 = 20;
const CONCURRENCY: u32 = 4;

/// A project whose plugin logs every signal for the witness, and takes 20 ms per batch.
fn project(database: &Database) -> Project {
    let plugin = crate::harness::guest("counts");
    let config = format!(
        "[database]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {plugin:?}\nburst_count = {BATCH}\n\
         concurrency = {CONCURRENCY}\n[signals.OrderPlaced.settings]\ndelay_ms = 20\n",
        database.url
    );
    Project::new(database.folder(), &config)
}

mod cases {
    use super::*;

    pub async fn a_killed_relay_loses_nothing(database: Database) {
        const ROUNDS: u32 = 18;
        const ROWS: u32 = 8000;
        database.orders(ROWS).await;
        let project = project(&database);
        let witness = Witness::new(database.folder());
        let mut random = fastrand::Rng::with_seed(ROUNDS.into());
        for _ in 0..ROUNDS {
            let mut relay = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.u64(30..400)));
            relay.kill().unwrap();
            relay.wait().unwrap();
        }
        let last = project.command(&["flushmany"]).stderr(witness.stderr()).output().unwrap();
        assert!(last.status.success(), "{}", witness.text());
        assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
        assert_eq!(database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0);
        assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead'").await, 0);
        let twice = witness.all_sent(ROWS);
        assert!(twice <= ROUNDS * CONCURRENCY * BATCH, "{twice} signals were sent twice");
    }

    pub async fn a_missing_table_is_reported(database: Database) {
        database.orders(4000).await;
        let project = project(&database);
        let witness = Witness::new(database.folder());
        let relay = project.command(&["flushmany"]).stdout(Stdio::piped()).stderr(witness.stderr()).spawn().unwrap();
        witness.wait_for(100);
        database.run("ALTER TABLE order_placed RENAME TO moved_away").await;
        let said: Said = relay.wait_with_output().unwrap().into();
        assert_eq!(said.status, 1, "{}", witness.text());
        assert!(witness.text().contains("order_placed"), "{}", witness.text());
        // With the table back, the rows that were not settled are sent.
        database.run("ALTER TABLE moved_away RENAME TO order_placed").await;
        let again = project.command(&["flushmany"]).stderr(witness.stderr()).status().unwrap();
        assert!(again.success(), "{}", witness.text());
        assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
        assert!(witness.all_sent(4000) <= CONCURRENCY * BATCH);
    }
}

on_each_database!(a_killed_relay_loses_nothing, a_missing_table_is_reported);

async fn a_killed_server_loses_nothing(system: System, kind: Kind) {
    let server = tokio::task::spawn_blocking(move || Server::start(kind)).await.unwrap();
    let database = Database::on(system, &server).await;
    database.orders(4000).await;
    let project = project(&database);
    let witness = Witness::new(database.folder());
    let mut relay = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
    for sent in [200, 1200] {
        witness.wait_for(sent);
        server.kill();
        // In the second round, this was logged before.
        witness.wait_until("database error, retrying");
        server.up();
    }
    let status = relay.wait().unwrap();
    assert!(status.success(), "{}", witness.text());
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
    assert!(witness.all_sent(4000) <= 2 * CONCURRENCY * BATCH);
    assert!(witness.text().contains("database error, retrying"), "{}", witness.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_nothing() {
    a_killed_server_loses_nothing(System::Postgres, Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mariadb_loses_nothing() {
    a_killed_server_loses_nothing(System::Mariadb, Kind::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_reported() {
    let database = Database::postgres().await;
    database.orders(50).await;
    database
        .run("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
        .await;
    let said = project(&database).run(&["flushmany"]);
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains("read-only transaction"), "{said:#?}");
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_is_reported() {
    let mut database = Database::sqlite().await;
    database.orders(50).await;
    let writable = database.url.clone();
    database.url = writable.replace("mode=rwc", "mode=ro");
    let said = project(&database).run(&["flushmany"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("readonly database"), "{said:#?}");
    database.url = writable;
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_loses_nothing() {
    let mut database = Database::sqlite().await;
    let disk = Disk::mount(database.folder().join("disk"), "size=12m");
    let file = disk.0.join("outbox.db");
    database.url = format!("sqlite://{}?mode=rwc", file.display());
    signalbus::outbox::Outbox::open(&database.url, 1).unwrap().migrate().await.unwrap();
    database.orders(3000).await;
    let project = project(&database);
    let witness = Witness::new(database.folder());
    let mut relay = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
    witness.wait_for(100);
    // Fill the disk, so that the relay's writes fail.
    let rest = disk.0.join("rest");
    let _ = std::fs::write(&rest, vec![0; 12 << 20]);
    let status = relay.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{}", witness.text());
    assert!(witness.text().contains("full"), "{}", witness.text());
    std::fs::remove_file(&rest).unwrap();
    assert!(database.number("SELECT count(*) FROM order_placed").await > 0, "the disk was not full enough");
    let again = project.command(&["flushmany"]).stderr(witness.stderr()).status().unwrap();
    assert!(again.success(), "{}", witness.text());
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
    assert!(witness.all_sent(3000) <= CONCURRENCY * BATCH);
}
