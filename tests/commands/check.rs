//! `check`: every problem in one run, each with its place and a remedy.

use crate::harness::command::{Project, config};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::on_each_database;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_reported_at_once() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("outbox.db");
    let url = format!("sqlite://{}?mode=rwc", database.display());
    let project = Project::new(folder.path(), &faulty(&url));
    std::fs::write(folder.path().join("text.wasm"), "#!/bin/sh\n").unwrap();
    execute(
        &url,
        "CREATE TABLE keyless (id INTEGER); CREATE TABLE unindexed (id INTEGER PRIMARY KEY, at TEXT); \
                   CREATE TABLE fine (id INTEGER PRIMARY KEY)",
    )
    .await;
    let said = project.run(&["check"]);
    assert_eq!(said.status, 78, "{said:#?}");
    // On a slow machine it says what it waits for.
    assert!(said.stderr.lines().all(|line| line.contains("compiling plugin")), "{said:#?}");
    let told: Vec<&str> = said.stdout.lines().collect();
    for (place, thing, cure) in [
        ("4:1", "unknown key `defaults.burst_cuont`", "did you mean \"burst_count\"?"),
        ("35:1", "unknown key `signals.Fine.grants.htpt`", "did you mean \"http\"?"),
        ("5:1", "signal type \"Missing\": table \"missing\" does not exist", "create it, or set `table` to another"),
        ("7:1", "table \"keyless\" has no primary key", "add one"),
        ("9:1", "`order_by` names column \"att\"", "did you mean \"at\"?"),
        ("16:1", "text.wasm\" is not a WebAssembly component", "wasm32-wasip2"),
        ("19:1", "imports \"wasi:sockets/", "add these grants"),
        ("22:1", "gone.wasm\" cannot be read", "No such file"),
        ("25:1", "\"signalbus:plugin/bulk-sender@0.9.0\"", "0.1.x"),
        ("28:1", "has digest \"sha256:", "restore the file, or change \"digest\""),
    ] {
        let line = told.iter().find(|line| line.contains(thing)).unwrap_or_else(|| panic!("{thing}: {said:#?}"));
        assert!(line.starts_with(&format!("error: signalbus.toml:{place}: ")) && line.contains(cure), "{line}");
    }
    assert!(told.contains(&"error: the side tables `signalbus_*` are missing; run `signalbus migrate`"), "{said:#?}");
    let slow = told.iter().find(|line| line.contains("no index")).unwrap();
    assert!(slow.starts_with("warning: signalbus.toml:13:1: signal type \"Unindexed\": no index"), "{slow}");
    assert!(slow.contains("`order_by` (at)") && slow.ends_with("create one"), "{slow}");
    let shared = "warning: signalbus.toml:19:1: signal type \"Socket\": table \"fine\" is also the table of \"Text\"";
    assert!(told.iter().any(|line| line.starts_with(shared)), "{said:#?}");
    assert_eq!(told.len(), 18, "{said:#?}");
}

fn faulty(url: &str) -> String {
    let plugin = guest("sends");
    format!(
        "[database]
url = {url:?}
[defaults]
burst_cuont = 7
[signals.Missing]
plugin = {plugin:?}
[signals.Keyless]
plugin = {plugin:?}
[signals.Misspelt]
plugin = {plugin:?}
table = \"unindexed\"
order_by = [\"att\"]
[signals.Unindexed]
plugin = {plugin:?}
order_by = [\"at\"]
[signals.Text]
table = \"fine\"
plugin = \"text.wasm\"
[signals.Socket]
table = \"fine\"
plugin = {:?}
[signals.Gone]
table = \"fine\"
plugin = \"gone.wasm\"
[signals.Newer]
table = \"fine\"
plugin = {:?}
[signals.Changed]
table = \"fine\"
plugin = {plugin:?}
digest = \"sha256:00\"
[signals.Fine]
plugin = {plugin:?}
[signals.Fine.grants]
htpt = []
",
        guest("opens_socket"),
        guest("signalbus_test_unknown_version")
    )
}

async fn execute(url: &str, sql: &str) {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_alone_is_not_a_failure() {
    let database = Database::sqlite().await;
    database.orders(3).await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", "order_by = ['customer']")]));
    let said = project.run(&["check"]);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.starts_with("warning: ") && said.stdout.ends_with("\nready to send: OrderPlaced\n"), "{said:#?}");
    database.run("CREATE INDEX by_customer ON order_placed (customer)").await;
    let ready = project.ok(&["check"]);
    assert!(ready.starts_with("OrderPlaced: ids rest on ") && ready.ends_with("\nready to send: OrderPlaced\n"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_without_signal_types_is_a_warning() {
    let database = Database::sqlite().await;
    let told = Project::new(database.folder(), &config(&database.url, &[])).ok(&["check"]);
    assert_eq!(told, "warning: signalbus.toml: no signal types are configured; add a `[signals.NAME]` section with a `plugin`\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_side_tables_are_rejected() {
    let database = Database::sqlite().await;
    database.orders(3).await;
    database.run("UPDATE signalbus_schema SET version = 99").await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "sends", "")]));
    for args in [&["check"][..], &["flush", "-w", "0"], &["migrate"]] {
        let said = project.run(args);
        let told = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.status, 78, "{said:#?}");
        assert!(told.contains("the side tables have version 99, newer than this release"), "{said:#?}");
    }
    assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_does_not_hide_plugin_problems() {
    let folder = TempDir::new().unwrap();
    let project = Project::new(folder.path(), "[database]\nurl = 'sqlite://nowhere.db'\n[signals.A]\nplugin = 'gone.wasm'\n");
    let said = project.run(&["check"]);
    assert_eq!(said.status, 78, "{said:#?}");
    assert!(said.stdout.contains("gone.wasm") && said.stdout.contains("unable to open database file"), "{said:#?}");
}

mod cases {
    use super::*;

    pub async fn table_problems_are_reported_on_each_database(database: Database) {
        database.run("CREATE TABLE keyless (id BIGINT, at BIGINT)").await;
        database.run("CREATE TABLE unindexed (id BIGINT PRIMARY KEY, at BIGINT)").await;
        let signals = [
            ("Missing", "sends", ""),
            ("Keyless", "sends", ""),
            ("Unindexed", "sends", "order_by = ['at']\norder_key = ['idd']"),
        ];
        let project = Project::new(database.folder(), &config(&database.url, &signals));
        let said = project.run(&["check"]);
        assert_eq!(said.status, 78, "{said:#?}");
        for fault in [
            "table \"missing\" does not exist",
            "\"keyless\" has no primary key",
            "column \"idd\"",
            "no index of table \"unindexed\"",
        ] {
            assert!(said.stdout.contains(fault), "{fault}: {said:#?}");
        }
    }
}

on_each_database!(table_problems_are_reported_on_each_database);

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_checked_before_anything_starts() {
    let database = Database::sqlite().await;
    database.orders(1).await;
    let plugin = guest("publishes");
    for (more, place, words) in [
        (
            "[connections.bus]\nurl = \"ftp://u:s3cret-word@host\"",
            "signalbus.toml:6:7: `connections.bus.url`: ",
            "unknown bus \"ftp://\" (known: amqp://",
        ),
        ("[connections.bus]\nurl = \"s3cret-word\"", "signalbus.toml:6:7: `connections.bus.url`: ", "invalid URL"),
        (
            "[connections.bus]\nurll = \"amqp://h\"",
            "signalbus.toml:6:1: unknown key `connections.bus.urll`",
            "did you mean \"url\"?",
        ),
        (
            "[connections.bus]\nurl = \"amqp://h\"\nca = \"gone.pem\"",
            "signalbus.toml:7:6: `connections.bus.ca`: gone.pem: ",
            "No such file",
        ),
        (
            "[connections.bus]\nurl = \"amqp://h\"\ntimeout = \"soon\"",
            "signalbus.toml:7:11: `connections.bus.timeout`: ",
            "invalid duration \"soon\"",
        ),
        (
            "[signals.OrderPlaced.grants]\nconnections = [\"buss\"]\n[connections.bus]\nurl = \"amqp://h\"",
            "signalbus.toml:6:16: `signals.OrderPlaced.grants.connections`: `[connections.buss]` is not defined",
            "did you mean \"bus\"?",
        ),
        (
            "[signals.OrderPlaced.settings]\nconnection = \"bus\"\n[connections.bus]\nurl = \"amqp://h\"",
            "signalbus.toml:3:1: signal type \"OrderPlaced\": plugin",
            "connection \"bus\", which is not granted: add it to `grants.connections`",
        ),
    ] {
        let text = format!("[database]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {plugin:?}\n{more}\n", database.url);
        let project = Project::new(database.folder(), &text);
        let said = project.run(&["check"]);
        assert_eq!(said.status, 78, "{said:#?}");
        let line = said.stdout.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place}: {said:#?}"));
        assert!(line.contains(words), "{line}");
        assert!(!said.stdout.contains("s3cret-word"), "{said:#?}");
        let flushed = project.run(&["flush", "-w", "0"]);
        assert_eq!(flushed.status, 78, "{flushed:#?}");
    }
}
