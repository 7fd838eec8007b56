//! Locks, frozen relays and switchovers: each holds up what it concerns, for seconds.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::harness::PATIENCE;
use crate::harness::command::send;
use crate::harness::database::{Database, System};
use crate::harness::guest;
use crate::harness::proxy::Proxy;
use crate::harness::relay::{Running, section};
use crate::harness::server::{Kind, Server};

mod cases {
    use super::*;

    /// The application has locked a hundred rows: the others go, and a stop is not held up.
    pub async fn locked_rows_hold_up_nobody(database: Database) {
        database.orders(2000).await;
        let isolation = database.either("", "SELECT 1", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
        macro_rules! locked {
            ($connection:expr) => {{
                let mut connection = $connection;
                // (Whatever else MariaDB has looked at would be locked, too.)
                connection.execute(isolation).await.unwrap();
                let mut transaction = connection.begin().await.unwrap();
                transaction.execute("SELECT id FROM order_placed WHERE id <= 2000 AND id % 20 = 0 FOR UPDATE").await.unwrap();
                let begun = Instant::now();
                let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), "burst_count = 50"));
                while database.count("order_placed").await > 100 {
                    assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                assert_eq!(relay.get("/readyz").status, 200);
                let begun = Instant::now();
                assert_eq!(relay.stop(), Some(0));
                assert!(begun.elapsed() < Duration::from_secs(8), "the stop took {:?}", begun.elapsed());
                transaction.execute("UPDATE order_placed SET payload = 'new' WHERE id = 20").await.unwrap();
                transaction.commit().await.unwrap();
                relay.again();
                relay.wait_empty(&database, "order_placed").await;
                let mut sent = relay.witness.order();
                let all = sent.len();
                sent.sort();
                sent.dedup();
                assert_eq!((sent.len(), all), (2000, 2001), "the one that was changed was sent again, as it is now");
                let changed = relay.witness.order().into_iter().filter(|row| row == "OrderPlaced:20").count();
                assert_eq!(changed, 2);
            }};
        }
        match database.system {
            System::Mariadb => locked!(database.mariadb_connection().await),
            _ => locked!(database.postgres_connection().await),
        }
    }

    /// Readiness tells while a table is locked, and the next row goes soon after.
    pub async fn a_locked_table_is_told_and_left_soon(database: Database) {
        database.orders(1).await;
        let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
        relay.wait_empty(&database, "order_placed").await;
        let lock = database.either("", "LOCK TABLE order_placed IN ACCESS EXCLUSIVE MODE", "LOCK TABLES order_placed WRITE");
        macro_rules! locked {
            ($connection:expr) => {{
                let mut connection = $connection;
                for text in ["BEGIN", lock, "INSERT INTO order_placed VALUES (2, 'c', 'p')"] {
                    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
                }
                relay.wait("the relay does not tell", || relay.get("/readyz").status == 503);
                tokio::time::sleep(Duration::from_secs(3)).await;
                assert_eq!(relay.get("/readyz").status, 503);
                for text in ["COMMIT", if database.system == System::Mariadb { "UNLOCK TABLES" } else { "SELECT 1" }] {
                    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
                }
            }};
        }
        match database.system {
            System::Mariadb => locked!(database.mariadb_connection().await),
            _ => locked!(database.postgres_connection().await),
        }
        let begun = Instant::now();
        relay.wait_empty(&database, "order_placed").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}: {}", begun.elapsed(), relay.witness.text());
        relay.wait_ready();
    }

    /// A relay that is frozen lets others go on. Thawed, it sends nothing of what it had claimed. (Not with SQLite: who is
    /// frozen within a transaction keeps the lock of the file.)
    pub async fn a_frozen_relay_lets_others_go_on(database: Database) {
        const SLOW: &str =
            "burst_count = 10\norder_by = ['id']\norder_key = ['customer']\n[signals.OrderPlaced.settings]\ndelay_ms = 50";
        database.orders(2000).await;
        let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
        relay.witness.wait_for(50);
        relay.signal("STOP");
        let sibling = relay.sibling();
        relay.wait_empty(&database, "order_placed").await;
        let sent = relay.witness.text().matches("counted").count();
        relay.signal("CONT");
        tokio::time::sleep(Duration::from_secs(2)).await;
        // What a processor was at when it was stopped ends: at most one call to the host on each of them.
        let more = relay.witness.text().matches("counted").count() - sent;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        assert!(more <= processors, "a thawed relay made {more} more calls: {}", relay.witness.text());
        // What was in flight is repeated.
        assert!(relay.witness.all_sent(2000) <= 4 * 10);
        relay.wait_ready();
        send(&sibling.0, "TERM");
    }
}

crate::on_databases!([postgres mariadb] locked_rows_hold_up_nobody, a_locked_table_is_told_and_left_soon, a_frozen_relay_lets_others_go_on);

/// The address leads to another server, and the old one, which is read-only now, keeps its connections open.
async fn switchover(system: System, kind: Kind, read_only: &[&str]) {
    let servers = tokio::task::spawn_blocking(move || [Server::start(kind), Server::start(kind)]).await.unwrap();
    let mut old = Database::on(system, &servers[0]).await;
    old.orders(3).await;
    let name = old.url.rsplit_once('/').unwrap().1.to_owned();
    let mut new = Database::on(system, &servers[1]).await;
    new.run(&format!("CREATE DATABASE {name}")).await;
    new.url = servers[1].url(&name);
    assert!(signalbus::outbox::Outbox::open(&new.url, 1).unwrap().migrate().await.unwrap());
    new.orders(0).await;
    let proxy = Proxy::to(servers[0].port());
    let direct = old.url.clone();
    old.url = old.url.replace(&format!(":{}/", servers[0].port()), &format!(":{}/", proxy.port));
    let relay = Running::start(&old, &section("OrderPlaced", &guest("counts"), ""));
    old.url = direct;
    relay.wait_empty(&old, "order_placed").await;
    for text in read_only {
        old.run(text).await;
    }
    proxy.lead(servers[1].port());
    let begun = Instant::now();
    new.run("INSERT INTO order_placed VALUES (7, 'c', 'p')").await;
    relay.wait_empty(&new, "order_placed").await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    relay.wait_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_follows_a_switchover_of_postgres() {
    let read_only = ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"];
    switchover(System::Postgres, Kind::Postgres, &read_only).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_follows_a_switchover_of_mariadb() {
    switchover(System::Mariadb, Kind::Mariadb, &["SET GLOBAL read_only = 1"]).await;
}
