//! Database URLs: addresses, passwords, options, and files that are replaced.

use std::time::Duration;

use crate::harness::command::{Project, config};
use crate::harness::database::{Database, System};
use crate::harness::proxy::Proxy;
use crate::harness::relay::{Running, section};
use crate::harness::{amount, guest};

mod cases {
    use super::*;

    /// A password may hold any character, and the host may be an IPv6 address.
    pub async fn any_password_and_any_address_work(database: Database) {
        const PASSWORD: &str = "p@:/?#[]%20 &\"\u{e4}";
        database.orders(3).await;
        let (server, name) = database.url.rsplit_once('/').unwrap();
        let port = server.rsplit_once(':').unwrap().1.parse().unwrap();
        let proxy = Proxy::at("[::1]:0", port);
        let user = format!("odd_{name}");
        let (scheme, user_statement) = match database.system {
            System::Postgres => ("postgres", format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")),
            _ => ("mysql", format!("CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {user}@'%'")),
        };
        database.run(&user_statement).await;
        let url = format!("{scheme}://{user}:${{ODD_PASSWORD}}@[::1]:{}/{name}", proxy.port);
        let project = Project::new(database.folder(), &config(&url, &[("OrderPlaced", "sends", "")]));
        let flush = || project.command(&["flush", "-w", "0"]).env("ODD_PASSWORD", PASSWORD).output().unwrap();
        let flushed = flush();
        assert!(flushed.status.success(), "{flushed:?}");
        assert_eq!(database.count("order_placed").await, 0);
        let project = Project::new(database.folder(), &config(&format!("{url}?sslmdoe=off"), &[("OrderPlaced", "sends", "")]));
        let refused = project.command(&["flush", "-w", "0"]).env("ODD_PASSWORD", PASSWORD).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(
            refused.status.code() == Some(78) && told.contains("unknown option \"sslmdoe\"; did you mean \"sslmode\"?"),
            "{told}"
        );
    }
}

crate::on_databases!([postgres mariadb] any_password_and_any_address_work);

/// The number of statements that PostgreSQL has run for a database.
async fn transactions(database: &Database) -> i64 {
    let name = database.url.rsplit_once('/').unwrap().1;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    database.number(&format!("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{name}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_polling_the_relay_waits_to_be_woken() {
    let mut database = Database::postgres().await;
    database.orders(5).await;
    let url = database.url.clone();
    database.url = format!("{url}\"\npoll = \"off");
    let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    database.url = url;
    relay.wait_empty(&database, "order_placed").await;
    // The relay counts its backlog once more, and PostgreSQL some transactions up to ten seconds later.
    tokio::time::sleep(Duration::from_secs(27)).await;
    database.run("INSERT INTO order_placed VALUES (6, 'c', 'p')").await;
    let before = transactions(&database).await;
    tokio::time::sleep(Duration::from_secs(amount(20, 60).into())).await;
    let asked = transactions(&database).await - before;
    // (Polling, it would ask some ten times; this test has asked, too.)
    assert!(asked <= 5, "it has asked {asked} times");
    assert_eq!(database.count("order_placed").await, 1);
    relay.post("/api/v1/wake");
    relay.wait_empty(&database, "order_placed").await;
}

/// As after a restore: another file has taken the name.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_sqlite_file_is_opened_again() {
    let database = Database::sqlite().await;
    database.orders(5).await;
    let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    relay.wait_empty(&database, "order_placed").await;
    let file = database.folder().join("outbox.db");
    let other = Database::sqlite().await;
    other.orders(0).await;
    other.run("INSERT INTO order_placed VALUES (7, 'c', 'p'); PRAGMA wal_checkpoint(TRUNCATE)").await;
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(database.folder().join(format!("outbox.db{ending}")));
    }
    std::fs::rename(other.folder().join("outbox.db"), &file).unwrap();
    relay.wait_empty(&database, "order_placed").await;
    assert_eq!(relay.witness.counts().len(), 6);
    relay.wait_ready();
}

/// As its application has it.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_enforces_foreign_keys_if_told_so() {
    let database = Database::sqlite().await;
    database.orders(2).await;
    database
        .run(
            "CREATE TABLE line (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES order_placed ON DELETE CASCADE); \
             INSERT INTO line VALUES (1, 1), (2, 2)",
        )
        .await;
    let signals = [("OrderPlaced", "sends", "")];
    let project = Project::new(database.folder(), &config(&database.url.replace("&foreign_keys=on", ""), &signals));
    let checked = project.ok(&["check"]);
    assert!(
        checked.contains("(line) are not enforced when its rows are deleted") && checked.contains("`foreign_keys=on`"),
        "{checked}"
    );
    project.ok(&["flush", "-w", "0"]);
    assert_eq!((database.count("order_placed").await, database.count("line").await), (0, 2));
    database.run("INSERT INTO order_placed VALUES (1, 'c', 'p')").await;
    let project = Project::new(database.folder(), &config(&database.url, &signals));
    assert!(!project.ok(&["check"]).contains("enforced"));
    project.ok(&["flush", "-w", "0"]);
    assert_eq!((database.count("order_placed").await, database.count("line").await), (0, 1));
}
