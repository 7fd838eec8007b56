//! A project from the start: init, check, pending, flush, and its dead letters.

use crate::harness::command::{Project, config};
use crate::harness::database::Database;
use crate::on_each_version;
use tempfile::TempDir;

/// A folder with the project that `init` creates in it.
fn started() -> (TempDir, Project) {
    let folder = TempDir::new().unwrap();
    let project = Project::at(folder.path());
    project.ok(&["init"]);
    (folder, project)
}

const READY: &str = "OrderPlaced: ids rest on the claim, and the content of the row; \
    to replace a row by an equal one while it is being sent is no change\n\
    PriceChanged: ids rest on the claim, and the content of the row; \
    to replace a row by an equal one while it is being sent is no change\n\
    ready to send: OrderPlaced, PriceChanged\n";

#[test]
fn a_new_project_is_ready_and_sends() {
    let (_folder, project) = started();
    assert_eq!(project.ok(&["check"]), READY);
    assert_eq!(project.ok(&["signals"]), "OrderPlaced\nPriceChanged\n");
    let waiting =
        "     20 of type \"OrderPlaced\"\n     20 of type \"PriceChanged\"\n-------------------------\nTotal pending: 40\n";
    assert_eq!(project.ok(&["pending"]), waiting);
    let flushed = project.run(&["flush", "-w", "0"]);
    assert_eq!((flushed.status, flushed.stdout.as_str()), (1, "sent 39, deferred 0, buried 1\n"), "{flushed:#?}");
    assert_eq!(project.ok(&["pending"]), "-------------------------\nTotal pending: 0\n");
}

#[test]
fn a_flush_tells_how_long_it_took() {
    let (_folder, project) = started();
    let told = project.run(&["flush", "-w", "1", "--json"]).json();
    let (seconds, rate) = (told["seconds"].as_f64().unwrap(), told["rate"].as_f64().unwrap());
    assert!(seconds > 0.0 && rate * seconds <= 40.0 && rate > 0.0, "{told}");
}

#[test]
fn a_dead_letter_is_listed_shown_redriven_and_discarded() {
    let (_folder, project) = started();
    project.run(&["flush", "-w", "0"]);
    let reason = "column \"customer\" of type \"text\": expected a string, found null";
    assert_eq!(project.ok(&["dead", "list"]), format!("      1  OrderPlaced:7  attempts 1  {reason}\n"));
    assert_eq!(project.ok(&["dead", "list", "PriceChanged"]), "no dead letters\n");
    let shown = project.ok(&["dead", "show", "1"]);
    let expected =
        format!("signal    OrderPlaced:7\nattempts  1\nreason    {reason}\nrow\n  id = 7\n  customer = NULL\n  total = 17.07\n");
    assert_eq!(shown, expected);
    let groups = project.ok(&["dead", "list", "--groups"]);
    let group = groups.split_whitespace().nth(2).unwrap();
    assert!(groups.starts_with("      1  ") && group.len() == 8, "{groups}");
    assert_eq!(project.ok(&["dead", "redrive", "--all", "--reason", group, "--dry-run"]), "1 dead letter\n");
    assert_eq!(project.ok(&["dead", "redrive", "--all", "--reason", group, "--older-than", "1h"]), "redriven 0\n");
    assert_eq!(project.run(&["dead", "redrive", "1", "--reason", group]).status, 64);
    assert_eq!(project.ok(&["dead", "redrive", "1"]), "redriven 1\n");
    assert!(project.ok(&["pending"]).starts_with("      1 of type \"OrderPlaced\"\n"));
    assert_eq!(project.run(&["flush", "-w", "0", "OrderPlaced"]).status, 1);
    assert_eq!(project.ok(&["dead", "discard", "--signal", "OrderPlaced"]), "discarded 1\n");
    assert_eq!(project.ok(&["dead", "redrive", "--all"]), "redriven 0\n");
    assert_eq!(project.ok(&["flush", "-w", "0"]), "sent 0, deferred 0, buried 0\n");
}

#[test]
fn init_overwrites_nothing() {
    for existing in ["signalbus.toml", "outbox.db", "plugins"] {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join(existing), "mine").unwrap();
        let said = Project::at(folder.path()).run(&["init"]);
        assert_eq!((said.status, said.stdout.as_str()), (1, ""), "{said:#?}");
        let expected = format!("error: \"{existing}\" already exists; choose another folder, as in `signalbus init demo`\n");
        assert_eq!(said.stderr, expected);
        assert_eq!(std::fs::read_to_string(folder.path().join(existing)).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn init_creates_the_folder_and_the_requested_number_of_signals() {
    let folder = TempDir::new().unwrap();
    let project = Project::at(folder.path());
    // Folder names may contain characters that are special in URLs.
    for (name, signals) in [("a #1 50%25 of?", "3"), ("deep/er", "0")] {
        let told = project.ok(&["init", name, "--signals", signals]);
        assert!(told.contains(&format!("next: cd {name}\n")), "{told}");
        let file = format!("{name}/signalbus.toml");
        let pending = project.run(&["--config", &file, "pending", "--json"]).json();
        assert_eq!(pending["total"], 2 * signals.parse::<u32>().unwrap());
        assert_eq!(project.ok(&["--config", &file, "check"]), READY);
    }
}

#[test]
fn an_unwritable_folder_is_named() {
    let said = Project::at(TempDir::new().unwrap().path()).run(&["init", "/proc/nowhere"]);
    assert_eq!(said.status, 1);
    assert!(said.stderr.starts_with("error: \"/proc/nowhere/plugins\" cannot be written: "), "{said:#?}");
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let (_folder, project) = started();
    let signals = project.run(&["signals", "--json"]).json();
    assert_eq!(signals["signals"][1]["type"], "PriceChanged");
    assert_eq!(signals["signals"][1]["order_key"][0], "product");
    assert_eq!(
        project.run(&["pending", "--json"]).json()["signals"][0],
        serde_json::json!({"type": "OrderPlaced", "pending": 20})
    );
    let flushed = project.run(&["flush", "-w", "0", "--json"]);
    assert_eq!(flushed.status, 1);
    let told = flushed.json();
    assert_eq!((&told["sent"], &told["buried"], &told["signals"][0]["buried"]), (&39.into(), &1.into(), &1.into()));
    let letters = project.run(&["dead", "list", "--json"]).json();
    assert_eq!(letters["dead_letters"][0]["key"], "7");
    assert_eq!(project.run(&["dead", "show", "1", "--json"]).json()["row"]["total"], "17.07");
    assert_eq!(project.run(&["dead", "redrive", "1", "--json"]).json()["redriven"], 1);
    assert_eq!(project.run(&["dead", "discard", "--all", "--json"]).json()["discarded"], 0);
    assert_eq!(project.run(&["flushmany", "--json"]).json()["buried"], 1);
    assert_eq!(project.run(&["flushordered", "--json"]).json()["sent"], 0);
}

#[test]
fn pending_lists_the_smallest_count_first() {
    let (_folder, project) = started();
    project.run(&["flush", "-w", "0", "OrderPlaced"]);
    project.ok(&["dead", "redrive", "--all"]);
    let waiting =
        "      1 of type \"OrderPlaced\"\n     20 of type \"PriceChanged\"\n-------------------------\nTotal pending: 21\n";
    assert_eq!(project.ok(&["pending"]), waiting);
}

mod cases {
    use super::*;

    pub async fn a_project_works_the_same_on_each_version(database: Database) {
        database.orders(30).await;
        let project = Project::new(database.folder(), &config(&database.url, &[("OrderPlaced", "outcomes", "")]));
        database.run("UPDATE order_placed SET payload = 'sent'").await;
        database.run("UPDATE order_placed SET payload = 'reject' WHERE id = 9").await;
        database.run("UPDATE order_placed SET payload = 'skip' WHERE id = 10").await;
        let ready = project.ok(&["check"]);
        assert!(ready.starts_with("OrderPlaced: ids rest on ") && ready.ends_with("\nready to send: OrderPlaced\n"), "{ready}");
        assert!(project.ok(&["pending"]).ends_with("\nTotal pending: 30\n"));
        let flushed = project.run(&["flush", "-w", "0"]);
        assert_eq!(flushed.stdout, "sent 28, skipped 1, deferred 0, buried 1\n", "{flushed:#?}");
        assert!(project.ok(&["dead", "list"]).contains("OrderPlaced:9  attempts 1  told to reject\n"));
        assert!(project.ok(&["dead", "show", "1"]).contains("  payload = reject\n"));
        assert_eq!(project.ok(&["dead", "redrive", "--all"]), "redriven 1\n");
        assert_eq!(database.number("SELECT id FROM order_placed").await, 9);
        database.run("UPDATE order_placed SET payload = 'sent'").await;
        assert_eq!(project.ok(&["flushmany"]), "sent 1, deferred 0, buried 0\n");
    }
}

on_each_version!(a_project_works_the_same_on_each_version);
