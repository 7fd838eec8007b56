//! Crashes: what the relay reports to the author of a plugin that traps.

use std::path::Path;

use super::in_each_language;
use crate::harness::command::{Project, config};
use crate::harness::database::Database;

/// Creates four rows, two of which make the plugin crash.
async fn crash(plugin: &Path) -> (Database, Project) {
    let database = Database::sqlite().await;
    database
        .run(
            "CREATE TABLE order_placed (id INTEGER PRIMARY KEY, outcome TEXT);
             INSERT INTO order_placed VALUES (1, 'skip'), (2, 'panic'), (3, 'skip'), (4, 'panic')",
        )
        .await;
    let text = config(&database.url, &[]);
    let more = format!(
        "[connections.bus]\nurl = 'nats://127.0.0.1:1'\n[signals.OrderPlaced]\nplugin = {plugin:?}\n\
         grants = {{ connections = ['bus'] }}\nsettings = {{ connection = 'bus', outcome_column = 'outcome' }}\nretry = {{ max_attempts = 1 }}\n"
    );
    let project = Project::new(database.folder(), &(text + &more));
    (database, project)
}

async fn a_crash_is_reported_with_its_location(language: &str) {
    let (database, project) = crash(&super::sample(language)).await;
    let said = project.run(&["flush", "-w", "0"]);
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead'").await, 2, "{said:#?}");
    let reasons = database.lines("SELECT reason FROM signalbus_hold WHERE state = 'dead'").await;
    assert!(reasons.iter().all(|reason| reason.contains("the row asks for it")), "{reasons:?}");
    let told: Vec<&str> = said.stderr.lines().filter(|line| line.contains("plugin stopped")).collect();
    let [told] = told[..] else { panic!("the crash is reported {} times: {}", told.len(), said.stderr) };
    let words = ["the row asks for it", "signal_type=\"OrderPlaced\"", "signals=\"OrderPlaced:2~", "generation=\""];
    assert!(words.iter().all(|word| told.contains(word)), "{told}");
    let name = format!("plugin=\"{language}\"");
    assert!(told.contains(&name), "{told}");
    let place = match language {
        "python" => " (at plugin.py:",
        "javascript" | "typescript" => "uncaught Error: the row asks for it (",
        _ => "",
    };
    assert!(reasons.iter().all(|reason| reason.contains(place)), "{reasons:?}");
    if ["javascript", "typescript"].contains(&language) {
        // Only the plugin's own stack has names, not that of the engine.
        assert!(said.stderr.contains("decide@"), "there is no stack: {}", said.stderr);
        return;
    }
    let frames = said.stderr.lines().filter(|line| {
        let frame = line.split_once(" - ").filter(|(place, _)| place.contains(": ") && place.contains(" 0x"));
        frame.is_some_and(|(_, name)| !name.contains("<wasm function"))
    });
    assert!(frames.count() > 1, "there is no backtrace with names: {}", said.stderr);
}

in_each_language!(a_crash_is_reported_with_its_location: rust, c, cpp, zig, go, python, javascript, typescript);

/// A backtrace has source lines if the component has debug information.
#[test]
fn source_lines_are_reported_if_the_component_has_them() {
    let folder = tempfile::TempDir::new().unwrap();
    Project::at(folder.path()).ok(&["plugin", "new", "debugged", "--lang", "c"]);
    let project = Project::at(&folder.path().join("debugged"));
    let built = project.command(&["plugin", "build"]).env("CFLAGS", "-g").env("LDFLAGS", "").output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let rows = r#"{"settings": {"connection": "bus", "outcome_column": "outcome"}, "cases": [{"name": "crash", "rows": [{"outcome": "panic"}]}]}"#;
    std::fs::write(project.folder().join("crash.json"), rows).unwrap();
    let shown = project.run(&["plugin", "test", "--rows", "crash.json"]).stdout;
    assert!(shown.contains("/decide.c:"), "{shown}");
}

/// `plugin replay` runs a dead letter again with the configuration of its signal type, but without a bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_replayed() {
    let (database, project) = crash(&super::sample("c")).await;
    project.run(&["flush", "-w", "0"]);
    let letters = project.run(&["dead", "list", "--json"]).json();
    let letter = letters["dead_letters"][0]["id"].to_string();
    let said = project.run(&["plugin", "replay", &letter, "--json"]);
    let replayed = said.json();
    assert_eq!(said.status, 1, "{said:#?}");
    assert_eq!(replayed["row"], serde_json::json!({"id": 2, "outcome": "panic"}), "{replayed}");
    assert_eq!(replayed["calls"][0]["failure"]["kind"], "trap", "{replayed}");
    assert!(replayed["calls"][0]["failure"]["backtrace"].as_str().unwrap().contains("abort"), "{replayed}");
    // Another component, which can send the row.
    let publishes = crate::harness::guest("publishes");
    let said = project.run(&["plugin", "replay", &letter, "--plugin", publishes.to_str().unwrap()]);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("row 1: \"sent\"") && said.stdout.contains("the dead letter stays"), "{said:#?}");
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead'").await, 2);
    let said = project.run(&["plugin", "replay", "99"]);
    assert!(said.status == 1 && said.stderr.contains("dead letter 99 not found"), "{said:#?}");
}
