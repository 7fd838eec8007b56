//! Production faults: the relay stays up, reports the problem, recovers by itself and loses nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::bouncer::Bouncer;
use crate::harness::database::{Database, System};
use crate::harness::proxy::Proxy;
use crate::harness::relay::{Running, section};
use crate::harness::server::{Kind, Server};
use crate::harness::{amount, guest};

const SLOW: &str = "burst_count = 20\n[signals.OrderPlaced.settings]\ndelay_ms = 5";

async fn until_empty(database: &Database, relay: &Running) {
    let begun = Instant::now();
    while database.number("SELECT count(*) FROM order_placed").await > 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn server(kind: Kind) -> Server {
    tokio::task::spawn_blocking(move || Server::start(kind)).await.unwrap()
}

/// Returns the URL of the same database on another port.
fn by_port(database: &Database, server: &Server, port: u16) -> String {
    database.url.replace(&format!(":{}/", server.port()), &format!(":{port}/"))
}

async fn insert(database: &Database, from: u32, rows: u32) {
    let source = database.series(rows);
    database.run(&format!("INSERT INTO order_placed SELECT i + {from} - 1, 'c', 'p' FROM {source}")).await;
}

async fn restarted(system: System, kind: Kind) {
    let server = server(kind).await;
    let database = Database::on(system, &server).await;
    database.orders(3000).await;
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
    for sent in [100, 1000, 3000] {
        relay.witness.wait_for(sent);
        server.kill();
        // With nothing left to send, polling must detect it.
        relay.wait("the relay is ready without a database", || sent == 3000 || relay.get("/readyz").status == 503);
        assert_eq!(relay.get("/healthz").status, 200);
        server.up();
    }
    insert(&database, 3001, 100).await;
    until_empty(&database, &relay).await;
    relay.wait_ready();
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    // A crash may lose claims, whose commits are not durable: their batches are sent again.
    assert!(relay.witness.all_sent(3100) <= 3 * 4 * 20);
    // Logged once per distinct error, not at every try.
    assert!(relay.witness.text().matches("database error, retrying").count() < 20, "{}", relay.witness.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_recovers_from_a_postgres_restart() {
    restarted(System::Postgres, Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_recovers_from_a_mariadb_restart() {
    restarted(System::Mariadb, Kind::Mariadb).await;
}

/// As after a switchover, when the name leads to another server and the old connections are still open.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_left_as_soon_as_another_one_answers() {
    let database = Database::postgres().await;
    database.orders(10).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let read_only =
        |on: &str| format!("BEGIN READ WRITE; ALTER DATABASE {name} SET default_transaction_read_only = {on}; COMMIT");
    database.run(&read_only("on")).await;
    let mut relay = Running::spawn(&database, &section("OrderPlaced", &guest("counts"), ""), "");
    relay.witness.wait_until("read-only transaction");
    assert_eq!(relay.get("/readyz").status, 503);
    database.run(&read_only("off")).await;
    relay.wait_ready();
    until_empty(&database, &relay).await;
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    assert_eq!(relay.witness.all_sent(10), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_waits_for_a_database_that_starts_later() {
    let server = server(Kind::Postgres).await;
    let database = Database::on(System::Postgres, &server).await;
    database.orders(10).await;
    server.kill();
    let relay = Running::spawn(&database, &section("OrderPlaced", &guest("counts"), ""), "");
    relay.wait("the admin listener does not answer", || relay.request("GET", "/readyz", "", "").is_ok());
    let ready = relay.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("has not started"), "{ready:?}");
    server.up();
    relay.wait_ready();
    until_empty(&database, &relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_are_replaced() {
    let database = Database::postgres().await;
    database.orders(4000).await;
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
    for round in 1..=20 {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'signalbus' AND datname = current_database()";
        database.lines(&format!("SELECT count(*)::text FROM ({kill}) killed")).await;
        // The relay goes on before the next are killed.
        relay.witness.wait_for(round * 100);
    }
    until_empty(&database, &relay).await;
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    assert_eq!(relay.witness.all_sent(4000), 0, "sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_partition_loses_nothing() {
    let server = server(Kind::Postgres).await;
    let mut database = Database::on(System::Postgres, &server).await;
    let direct = database.url.clone();
    database.orders(4000).await;
    let proxy = Proxy::to(server.port());
    database.url = by_port(&database, &server, proxy.port);
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
    database.url = direct;
    for sent in [200, 1500] {
        relay.witness.wait_for(sent);
        // At first packets are dropped silently, then the connections are reset.
        proxy.cut();
        tokio::time::sleep(Duration::from_secs(amount(3, 60).into())).await;
        proxy.reset();
        relay.wait("the relay is ready without a database", || relay.get("/readyz").status == 503);
        proxy.mend();
    }
    until_empty(&database, &relay).await;
    relay.wait_ready();
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    assert_eq!(relay.witness.all_sent(4000), 0, "sent twice");
}

/// A poll without an answer has nothing to finish.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_does_not_delay_a_stop() {
    let server = tokio::task::spawn_blocking(|| Server::shared(Kind::Postgres)).await.unwrap();
    let mut database = Database::postgres().await;
    database.orders(10).await;
    let proxy = Proxy::to(server.port());
    let direct = database.url.clone();
    database.url = by_port(&database, server, proxy.port);
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    database.url = direct;
    until_empty(&database, &relay).await;
    relay.wait("a batch was not settled", || relay.metric("signalbus_batches_in_flight{signal=\"OrderPlaced\"}") == 0.0);
    proxy.cut();
    // Long enough for several polls.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    proxy.mend();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_takes_over() {
    let leader = server(Kind::Postgres).await;
    let mut database = Database::on(System::Postgres, &leader).await;
    database.orders(4000).await;
    let follower = tokio::task::spawn_blocking(move || (Server::follow(&leader), leader)).await.unwrap();
    let (follower, leader) = follower;
    let proxy = Proxy::to(leader.port());
    database.url = by_port(&database, &leader, proxy.port);
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
    relay.witness.wait_for(500);
    leader.kill();
    follower.promote();
    proxy.redirect(follower.port());
    until_empty(&database, &relay).await;
    relay.wait_ready();
    insert(&database, 4001, 100).await;
    until_empty(&database, &relay).await;
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    // What had not been replicated is repeated.
    assert!(relay.witness.all_sent_with_any_id(4100) <= 4 * 20);
}

/// With a pooler that rejects startup settings, and one that ignores them.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_in_transaction_mode_works_except_for_listen() {
    for more in ["", "ignore_startup_parameters = options, extra_float_digits"] {
        let server = tokio::task::spawn_blocking(|| Server::shared(Kind::Postgres)).await.unwrap();
        let mut database = Database::postgres().await;
        database.orders(2000).await;
        let direct = database.url.clone();
        let bouncer = Bouncer::before(server, more);
        database.url = by_port(&database, server, bouncer.port);
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
        database.url.clone_from(&direct);
        relay.project.ok(&["check"]);
        relay.witness.wait_for(2000);
        relay.project.ok(&["migrate", "--notify"]);
        assert_eq!(relay.stop(), Some(0));
        relay.again();
        relay.witness.wait_until("if there is a pooler in transaction mode");
        relay.wait_ready();
        insert(&database, 2001, 500).await;
        until_empty(&database, &relay).await;
        assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
        assert_eq!(relay.witness.all_sent(2500), 0, "sent twice");
        // The relay leaves nothing behind on the pooler's connections.
        let left = Command::new("psql")
            .arg(by_port(&database, server, bouncer.port))
            .args(["-Atc", "SELECT current_setting('enable_seqscan') || count(*) FROM pg_prepared_statements"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "on0\n", "{left:?}");
    }
}

/// Only the database's clock matters.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_ten_minutes_apart_do_not_matter() {
    let database = Database::postgres().await;
    database.orders(3000).await;
    let more = "burst_count = 20\n[signals.OrderPlaced.settings]\ndelay_ms = 20";
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), more));
    let mut siblings = Vec::new();
    for offset in ["+10m", "-10m"] {
        let binary = relay.project.command(&[]).get_program().to_owned();
        let file = relay.project.folder().join(format!("{offset}.toml"));
        let text = std::fs::read_to_string(relay.project.folder().join("signalbus.toml")).unwrap();
        std::fs::write(&file, text.replace("[admin]\nlisten", "[admin]\n#")).unwrap();
        let mut command = Command::new("faketime");
        command.args(["-m", "-f", offset]).arg(binary).arg("--config").arg(&file).arg("run");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        // faketime starts the relay as its child: a process group of their own is stopped together.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        siblings.push(command.stderr(relay.witness.stderr()).spawn().unwrap());
    }
    until_empty(&database, &relay).await;
    for mut sibling in siblings {
        crate::harness::server::run(Command::new("kill").args(["-s", "TERM", "--", &format!("-{}", sibling.id())]));
        let _ = sibling.wait();
    }
    assert_eq!(relay.stop(), Some(0));
    assert_eq!(relay.witness.all_sent(3000), 0, "sent twice");
    assert!(!relay.witness.text().contains("taken over"), "{}", relay.witness.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_waits_while_the_disk_is_full() {
    let mut database = Database::sqlite().await;
    let disk = crate::harness::disk::Disk::mount(database.folder().join("disk"), "size=12m");
    let file = disk.0.join("outbox.db");
    database.url = format!("sqlite://{}?mode=rwc", file.display());
    signalbus::outbox::Outbox::open(&database.url, 1).unwrap().migrate().await.unwrap();
    database.orders(3000).await;
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), SLOW));
    relay.witness.wait_for(100);
    let rest = disk.0.join("rest");
    let _ = std::fs::write(&rest, vec![0; 12 << 20]);
    relay.wait("the full disk is not reported", || relay.get("/readyz").body.contains("full"));
    std::fs::remove_file(&rest).unwrap();
    until_empty(&database, &relay).await;
    relay.wait_ready();
    assert_eq!(relay.stop(), Some(0), "{}", relay.witness.text());
    assert!(relay.witness.all_sent(3000) <= 4 * 20);
}
