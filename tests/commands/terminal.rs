//! Closed pipes, terminals, and JSON logs.

use std::process::{Command, Stdio};

use crate::harness::command::{Project, Said, config};
use crate::harness::database::Database;
use crate::harness::witness::Witness;

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

async fn project(guest: &str, rows: u32, more: &str) -> (Database, Project) {
    let database = Database::sqlite().await;
    database.orders(rows).await;
    let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", guest, more)]));
    (database, project)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_does_not_stop_a_flush() {
    for guest in ["counts", "floods_log", "floods_stdout"] {
        for format in ["text", "json"] {
            let (database, project) = project(guest, 30, "").await;
            let mut command = project.command(&["--log-format", format, "flush", "-w", "0"]);
            let said = Said::from(command.stderr(closed()).output().unwrap());
            assert_eq!((said.status, said.stdout.as_str()), (0, "sent 30, deferred 0, buried 0\n"), "{guest}");
            assert_eq!(database.number("SELECT count(*) FROM order_placed").await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_are_the_same_with_closed_pipes() {
    let (_database, project) = project("rejects", 3, "").await;
    for (args, status) in [
        (&["flush", "-w", "0"][..], 1),
        (&["dead", "list"], 0),
        (&["dead", "show", "99"], 1),
        (&["dead", "redrive", "--all"], 0),
        (&["pending"], 0),
        (&["check"], 0),
        (&["flush", "Nonsense"], 64),
        (&["flsh"], 64),
        (&["--help"], 0),
        (&["--config", "nowhere.toml", "check"], 78),
    ] {
        let ended = project.command(args).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{args:?}");
    }
}

/// Runs a command on a terminal, and returns what it showed.
fn on_a_terminal(project: &Project, args: &str, rust_log: &str) -> String {
    let binary = project.command(&[]).get_program().to_string_lossy().into_owned();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{binary} {args}"), "/dev/null"]).env("RUST_LOG", rust_log).env("TERM", "xterm");
    let shown = command.current_dir(project.folder()).stdin(Stdio::null()).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap()
}

/// Six batches, a third of a second each.
const SLOW: &str = "burst_count = 5\nconcurrency = 1\n[signals.OrderPlaced.settings]\ndelay_ms = 333";

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_appears_on_a_terminal_after_a_second() {
    let (_database, project) = project("counts", 30, SLOW).await;
    let shown = on_a_terminal(&project, "flush -w 0", "off");
    assert!(shown.contains("of 30 signals"), "{shown:?}");
    assert!(shown.ends_with("sent 30, deferred 0, buried 0\r\n"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_do_not_tear_the_bar() {
    let (_database, project) = project("counts", 30, SLOW).await;
    let shown = on_a_terminal(&project, "flushmany", "info");
    assert!(shown.contains("of 30 signals"), "{shown:?}");
    let counted: Vec<&str> = shown.split('\n').filter(|line| line.contains("counted")).collect();
    assert_eq!(counted.len(), 6, "{shown:?}");
    for line in counted {
        // The bar is erased before the line begins.
        let begin = line.rfind("\u{1b}[2K").map_or(0, |at| at + 4);
        assert!(!line[begin..].contains("signals"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bar_appears_for_a_quick_flush() {
    let (_database, project) = project("counts", 30, "").await;
    assert_eq!(on_a_terminal(&project, "flush -w 0", "off"), "sent 30, deferred 0, buried 0\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bar_appears_without_a_terminal() {
    let (_database, project) = project("counts", 30, SLOW).await;
    let said = Said::from(project.command(&["flush", "-w", "0"]).env("RUST_LOG", "off").output().unwrap());
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("sent 30, deferred 0, buried 0\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_json_log_is_json() {
    let (database, project) = project("outcomes", 12, "timeout = '1s'").await;
    let payloads = "CASE id % 6 WHEN 0 THEN 'sent' WHEN 1 THEN 'skip' WHEN 2 THEN 'retry' WHEN 3 THEN 'reject' WHEN 4 THEN 'trap' ELSE 'sent' END";
    database.run(&format!("UPDATE order_placed SET payload = {payloads}")).await;
    let mut runs = vec![project.run(&["--log-format", "json", "flush", "-w", "0", "--json"])];
    assert_eq!((runs[0].status, &runs[0].json()["deferred"]), (1, &4.into()));
    for args in [&["flush", "Nonsense"][..], &["dead", "show", "99"], &["--config", "nowhere.toml", "pending"]] {
        runs.push(project.run(&[&["--log-format", "json"], args].concat()));
    }
    database.run("DELETE FROM signalbus_hold WHERE state = 'retry'; UPDATE order_placed SET payload = 'unavailable'").await;
    runs.push(project.run(&["--log-format", "json", "flush", "-w", "0"]));
    assert_eq!(runs[4].status, 69);
    for said in runs {
        assert!(!said.stderr.is_empty());
        for line in said.stderr.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(record["level"].is_string() && record["message"].is_string() && record["timestamp"].is_string(), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_cannot_control_the_terminal() {
    let (database, project) = project("sends", 1, "").await;
    database
        .run(
            "INSERT INTO signalbus_hold VALUES (1, 'OrderPlaced', '1', '', '', '', '', 'dead', 1, 0, 0, \
             'a' || char(27) || '[2J' || char(10) || 'b', '')",
        )
        .await;
    assert_eq!(project.ok(&["dead", "list"]), "      1  OrderPlaced:1  attempts 1  a\\u{1b}[2J\\nb\n");
    assert!(project.ok(&["dead", "show", "1"]).contains("reason    a\\u{1b}[2J\\nb\n"));
    assert_eq!(project.run(&["dead", "list", "--json"]).json()["dead_letters"][0]["reason"], "a\u{1b}[2J\nb");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_cache_is_not_needed() {
    let (_database, project) = project("sends", 3, "").await;
    let mut command = project.command(&["flush", "-w", "0"]);
    let said = Said::from(command.env("XDG_CACHE_HOME", "/proc/nowhere").output().unwrap());
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 3, deferred 0, buried 0\n"), "{said:#?}");
    assert!(said.stderr.contains("plugin cache disabled"), "{said:#?}");
}

/// Relays that start together compile the same plugin, and one of them finds the other's unfinished file.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_use_by_another_relay_is_no_warning() {
    let (database, project) = project("sends", 3, "").await;
    let cache = database.folder().join("cache");
    let check = || Said::from(project.command(&["check"]).env("XDG_CACHE_HOME", &cache).output().unwrap());
    assert_eq!(check().status, 0);
    let folder = std::fs::read_dir(cache.join("signalbus/modules")).unwrap().next().unwrap().unwrap().path();
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        std::fs::write(file.with_extension("wip-atomic-write-mod"), "").unwrap();
        std::fs::remove_file(&file).unwrap();
    }
    let said = check();
    assert!(said.status == 0 && !said.stderr.contains("WARN"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_log_filter_is_reported() {
    let (_database, project) = project("sends", 1, "").await;
    let said = Said::from(project.command(&["flushmany"]).env("RUST_LOG", "signalbus=loud").output().unwrap());
    assert_eq!(said.status, 0);
    assert!(said.stderr.contains("invalid RUST_LOG"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_signal_is_logged() {
    let (database, project) = project("retries", 1, "").await;
    let witness = Witness::new(database.folder());
    project.command(&["flush", "-w", "0"]).stderr(witness.stderr()).status().unwrap();
    assert!(witness.text().contains("signal deferred id=\"OrderPlaced:1~"), "{}", witness.text());
}
