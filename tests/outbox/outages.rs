//! Servers that are killed and restarted: nothing is lost, and no attempt is charged.

use crate::harness::database::{Database, System};
use crate::harness::lane::{Relay, attempts, burials, claim, drain, orders, sent};
use crate::harness::server::{Kind, Server};

/// Kills the server between claim and settle, and while nothing is claimed.
async fn survive(system: System, kind: Kind) {
    let server = tokio::task::spawn_blocking(move || Server::start(kind)).await.unwrap();
    let database = Database::on(system, &server).await;
    database.orders(50).await;
    let relay = Relay::open(&database, &orders()).await;
    let mut worker = relay.worker();
    let first = claim(&mut worker, 10).await;
    assert_eq!(crate::harness::lane::settle(&mut worker, &first, &sent(&first)).await, 10);
    let batch = claim(&mut worker, 10).await;
    server.kill();
    assert!(worker.settle(&batch, &burials(&batch)).await.unwrap_err().is_unreachable());
    // The claim waits for a connection until its time limit.
    assert!(worker.claim(10, None).await.unwrap_err().is_unreachable());
    server.up();
    // Settled rows stay deleted. A claim need not survive its server: either it is still ours, or its
    // rows are claimed again.
    assert_eq!(database.count("order_placed").await, 40);
    let settled = worker.settle(&batch, &sent(&batch)).await.unwrap();
    let left = if settled == signalbus::outbox::Settled::Fenced { 40 } else { 30 };
    assert_eq!(relay.outbox.pending(&orders()).await.unwrap(), left);
    let batch = claim(&mut worker, 5).await;
    assert!(attempts(&batch).iter().all(|&attempt| attempt == 1));
    database.expire().await;
    assert_eq!(drain(&mut worker, 7).await.len() as u64, left);
    assert_eq!(
        database.count("signalbus_hold WHERE state = 'retry'").await
            + database.count("signalbus_hold WHERE state = 'dead'").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_and_charges_nothing() {
    survive(System::Postgres, Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mariadb_loses_and_charges_nothing() {
    survive(System::Mariadb, Kind::Mariadb).await;
}

/// A session terminated by an administrator counts as unreachable, not as refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_session_is_a_transient_outage() {
    for database in [Database::postgres().await, Database::mariadb().await] {
        database.orders(5).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 5).await;
        let name = database.url.rsplit('/').next().unwrap();
        match database.system {
            System::Postgres => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
                database.run(end).await;
            }
            _ => {
                let list = format!(
                    "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE db = '{name}' AND id <> connection_id()"
                );
                for id in database.lines(&list).await {
                    // One of them may be the closing connection of the last statement.
                    database.run(&format!("BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; KILL {id}; END")).await;
                }
            }
        }
        let error = worker.settle(&batch, &sent(&batch)).await.unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
        // The pool may hold more terminated connections.
        let settled = loop {
            match worker.settle(&batch, &sent(&batch)).await {
                Err(error) if error.is_unreachable() => {}
                settled => break settled.unwrap(),
            }
        };
        assert_eq!(settled, signalbus::outbox::Settled::Done(signalbus::outbox::Deletions { deleted: 5, ..Default::default() }));
    }
}
