//! The same plugin in every language, against the same suite, by the command that authors have.

use std::path::Path;

use super::in_each_language;
use crate::harness::command::Project;

/// What `plugin test` says of a component, with the rows of the samples.
pub fn tried(component: &Path) -> serde_json::Value {
    let folder = tempfile::TempDir::new().unwrap();
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/rows.json");
    let (component, rows) = (component.to_str().unwrap(), rows.to_str().unwrap());
    let said = Project::at(folder.path()).run(&["plugin", "test", component, "--rows", rows, "--json"]);
    said.json()
}

/// All of the contract, and all cases of the samples.
pub fn passes(component: &Path) {
    let report = tried(component);
    let cases = report["cases"].as_array().unwrap();
    let failed: Vec<String> =
        cases.iter().filter(|case| !case["fault"].is_null()).map(|case| format!("{}: {}", case["name"], case["fault"])).collect();
    assert_eq!((report["failed"].as_u64(), failed), (Some(0), vec![]));
    let of = |part: &str| cases.iter().filter(|case| case["part"] == part).count();
    assert!(of("contract") >= 11 && of("rows") >= 20, "{} and {} cases", of("contract"), of("rows"));
}

async fn conforms(language: &str) {
    passes(&super::sample(language));
}

in_each_language!(conforms: rust, c, cpp, zig, go, python, javascript, typescript);

/// Made for `wasm32-unknown-unknown`: what `plugin build` makes of a core module imports the contract alone.
#[test]
fn rust_without_wasi_conforms() {
    let core = std::fs::read(super::sample("rust-core")).unwrap();
    assert_eq!(signalbus::component::kind(&core).unwrap(), signalbus::component::Kind::CoreModule);
    let component = signalbus::component::encode(&core, Path::new("/nowhere")).unwrap();
    let imports = signalbus::component::describe(&component).unwrap().imports;
    assert!(imports.iter().all(|import| import.starts_with("signalbus:plugin/")), "{imports:?}");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, component).unwrap();
    passes(&file);
}

/// A plugin that is wrong is found out, and told why.
#[test]
fn the_first_failing_case_is_explained() {
    let folder = tempfile::TempDir::new().unwrap();
    let rows = r#"{"cases": [
        {"name": "right", "rows": [{"id": 1, "payload": "skip"}], "expect": {"outcomes": ["skip"]}},
        {"name": "wrong", "rows": [{"id": 1, "payload": "sent"}, {"id": 2, "payload": "retry:500"}],
         "expect": {"outcomes": ["sent", {"retry": "later", "after_ms": 600}]}}
    ]}"#;
    std::fs::write(folder.path().join("rows.json"), rows).unwrap();
    let plugin = crate::harness::guest("outcomes");
    let said = Project::at(folder.path()).run(&["plugin", "test", plugin.to_str().unwrap(), "--rows", "rows.json"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stdout.contains("  ok     right "), "{}", said.stdout);
    let fault = r#"row 2: the outcome is {"after_ms":500,"retry":""#;
    assert!(said.stdout.contains(fault) && said.stdout.contains("the first that failed: wrong"), "{}", said.stdout);
}

/// What goes wrong in a plugin is a verdict of the contract, whatever it is.
#[test]
fn the_contract_finds_what_loses_rows() {
    for (guest, words) in [
        ("traps", "a call ended without an answer: plugin panicked at"),
        ("answers_too_few", "outcomes for 2 rows: answer one for each, in their order"),
    ] {
        let report = tried(&crate::harness::guest(guest));
        let faults: Vec<&str> = report["cases"].as_array().unwrap().iter().filter_map(|case| case["fault"].as_str()).collect();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{guest}: {faults:#?}");
    }
}

#[test]
fn a_file_of_rows_that_is_wrong_says_where() {
    let folder = tempfile::TempDir::new().unwrap();
    let plugin = crate::harness::guest("sends");
    for (rows, words) in [
        (
            "[{\"id\": 1}, {\"total\": {\"int64\": \"x\"}}]",
            "row 2: column \"total\": {\"int64\": \"x\"} is no integer of 64 bits",
        ),
        ("{\"cases\": [{\"name\": \"a\", \"rows\": [], \"expekt\": 1}]}", "unknown field `expekt`"),
        ("[{\"id\": 1},", "line 1"),
        ("{\"timeout\": \"30\", \"cases\": []}", "\"30\" is no duration; write"),
    ] {
        std::fs::write(folder.path().join("rows.json"), rows).unwrap();
        let said = Project::at(folder.path()).run(&["plugin", "test", plugin.to_str().unwrap(), "--rows", "rows.json"]);
        assert_eq!(said.status, 64, "{said:#?}");
        assert!(said.stderr.starts_with("error: rows.json: ") && said.stderr.contains(words), "{}", said.stderr);
    }
}
