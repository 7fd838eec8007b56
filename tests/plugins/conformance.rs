//! Conformance: the same plugin in every language passes the suite of `plugin test`.

use std::path::Path;

use super::in_each_language;
use crate::harness::command::Project;

/// The rows of the samples.
pub const ROWS: &str = "plugins/rows.json";

/// Returns the report of `plugin test` for a component.
pub fn tried(component: &Path, rows: &str) -> serde_json::Value {
    let folder = tempfile::TempDir::new().unwrap();
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(rows);
    let (component, rows) = (component.to_str().unwrap(), rows.to_str().unwrap());
    let said = Project::at(folder.path()).run(&["plugin", "test", component, "--rows", rows, "--json"]);
    said.json()
}

/// Asserts that a component passes the contract tests and all cases of the file.
pub fn passes(component: &Path, rows: &str) {
    let report = tried(component, rows);
    let cases = report["cases"].as_array().unwrap();
    let failed: Vec<String> =
        cases.iter().filter(|case| !case["fault"].is_null()).map(|case| format!("{}: {}", case["name"], case["fault"])).collect();
    assert_eq!((report["failed"].as_u64(), failed), (Some(0), vec![]));
    let of = |part: &str| cases.iter().filter(|case| case["part"] == part).count();
    assert!(of("contract") >= 11 && of("rows") >= 20, "{} and {} cases", of("contract"), of("rows"));
}

async fn conforms(language: &str) {
    passes(&super::sample(language), ROWS);
}

in_each_language!(conforms: rust, c, cpp, zig, go, python, javascript, typescript);

/// A component that `plugin build` makes of a core module for `wasm32-unknown-unknown` imports only the
/// contract.
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
    passes(&file, ROWS);
}

/// The output explains why a case has failed.
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
    assert!(said.stdout.contains(fault) && said.stdout.contains("first failure: wrong"), "{}", said.stdout);
}

/// Returns the faults of `plugin test`, one for each failed case, and its output.
fn faults(guest: &Path, rows: &str) -> (Vec<String>, String) {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("rows.json"), rows).unwrap();
    let args = ["plugin", "test", guest.to_str().unwrap(), "--rows", "rows.json", "--show"];
    let project = Project::at(folder.path());
    let report = project.run(&[&args[..], &["--json"]].concat());
    let own =
        report.json()["cases"].as_array().unwrap().iter().filter(|case| case["part"] == "rows").cloned().collect::<Vec<_>>();
    let faults = own.iter().filter_map(|case| Some(format!("{}: {}", case["name"].as_str()?, case["fault"].as_str()?)));
    (faults.collect(), report.stdout.clone() + &project.run(&args).stdout)
}

/// The relay sends a failed batch again row by row, but the author must know that it failed.
#[test]
fn a_failed_call_is_a_fault_although_its_rows_are_sent_one_by_one() {
    let rows = r#"{"cases": [
        {"name": "silent", "rows": [{"id": 1, "payload": "trap"}, {"id": 2, "payload": "sent"}]},
        {"name": "expects rows", "rows": [{"id": 1, "payload": "trap"}, {"id": 2, "payload": "sent"}],
         "expect": {"outcomes": [{"retry": "told to trap"}, "sent"]}},
        {"name": "expects another", "rows": [{"id": 1, "payload": "trap"}], "expect": {"failure": "exit"}},
        {"name": "expects it", "rows": [{"id": 1, "payload": "trap"}, {"id": 2, "payload": "sent"}],
         "expect": {"failure": "trap", "outcomes": [{"retry": "told to trap"}, "sent"]}},
        {"name": "expects any", "rows": [{"id": 1, "payload": "trap"}], "expect": {"failure": "any"}},
        {"name": "expects one that does not come", "rows": [{"id": 1, "payload": "sent"}], "expect": {"failure": "any"}}
    ]}"#;
    let (faults, _) = faults(&crate::harness::guest("outcomes"), rows);
    let [silent, rows, another, none] = &faults[..] else { panic!("{faults:#?}") };
    assert!(silent.starts_with("silent: a call ended without an answer: plugin panicked at"), "{silent}");
    assert!(rows.starts_with("expects rows: a call ended without an answer: plugin panicked at"), "{rows}");
    assert!(another.starts_with("expects another: a call ended without an answer, expected failure \"exit\": "), "{another}");
    assert_eq!(none, "expects one that does not come: every call was answered, expected one to fail");
}

#[test]
fn a_wrong_number_of_outcomes_fails_a_case_without_expectations() {
    let rows = r#"[{"id": 1}, {"id": 2}]"#;
    let (faults, text) = faults(&crate::harness::guest("answers_too_few"), rows);
    assert_eq!(faults, ["the rows of the file: 1 outcomes for 2 rows; return a list with one for each row, in the same order"]);
    assert!(text.contains("  FAILED the rows of the file"), "{text}");
}

/// Of a run, nothing may be sent behind a failure. A list of one message of each key is always in order.
#[test]
fn a_row_that_is_sent_behind_a_failure_of_its_run_fails_a_case() {
    let case = |attributes: &str| {
        let rows = r#"[{"id": 1, "payload": "sent"}, {"id": 2, "payload": "retry"}, {"id": 3, "payload": "sent"}]"#;
        let (faults, _) = faults(
            &crate::harness::guest("disorders"),
            &format!(r#"{{"cases": [{{"name": "a", "rows": {rows}, "attributes": {attributes}}}]}}"#),
        );
        faults
    };
    let found = case(r#"{"ordered": "true"}"#);
    assert!(found.len() == 1 && found[0].starts_with("a: signal \"OrderPlaced:3\" was sent, or skipped, although"), "{found:?}");
    assert_eq!(case(r#"{"ordered": "true", "order_key": "id"}"#), [""; 0]);
    assert_eq!(case("{}"), [""; 0]);
}

/// Every case is reported, with what to do.
#[test]
fn a_plugin_that_never_answers_is_tested_to_the_end() {
    let rows = r#"{"timeout": "50ms", "cases": [{"name": "a", "rows": [{"id": 1}]}]}"#;
    let (faults, text) = faults(&crate::harness::guest("spins"), rows);
    let fault =
        "a: a call ended without an answer: plugin exceeded its deadline of 50ms; raise `timeout`, or lower `burst_count`";
    assert_eq!(faults, [fault]);
    assert!(text.contains("\n0 of 7 passed"), "{text}");
}

/// A smaller batch does not help if each call has one row.
#[test]
fn a_smaller_batch_is_not_advised_if_a_call_has_one_row() {
    let advised = |guest: &str, rows: &str, attributes: &str| {
        // The case expects another failure, so that the contract tests do not use its rows.
        let case = format!(r#""name": "a", "timeout": "50ms", "rows": {rows}, "attributes": {attributes}"#);
        let case = case + r#", "expect": {"failure": "exit"}"#;
        let (faults, _) = faults(&crate::harness::guest(guest), &format!(r#"{{"cases": [{{{case}}}]}}"#));
        assert!(faults[0].contains("; raise `timeout`"), "{faults:?}");
        faults[0].contains("burst_count")
    };
    let rows = r#"[{"id": 1, "payload": "spin"}, {"id": 2, "payload": "sent"}]"#;
    assert!(advised("outcomes", rows, "{}"));
    assert!(advised("outcomes", rows, r#"{"ordered": "true", "order_key": "id"}"#));
    assert!(advised("outcomes", rows, r#"{"ordered": "true"}"#), "it takes runs");
    assert!(!advised("traps_alone", rows, "{}"));
}

/// Secrets are compared with what is expected, but redacted in the output.
#[test]
fn secrets_are_compared_and_not_shown() {
    let rows = r#"{"secrets": {"token": "hunter22\"x"}, "settings": {"connection": "bus"}, "cases": [
        {"name": "right", "rows": [{"id": 1, "note": "hunter22\"x"}],
         "expect": {"messages": [{"headers": {"signal-type": "OrderPlaced", "token": "hunter22\"x"}}]}},
        {"name": "wrong", "rows": [{"id": 1}],
         "expect": {"messages": [{"headers": {"token": "hunter22\"x"}}], "logs": [{"message": "hunter22\"x"}]}}
    ]}"#;
    let (faults, text) = faults(&super::sample("rust"), rows);
    let wrong =
        r#"wrong: message 1: `headers` are {"signal-type":"OrderPlaced","token":"[secret]"}, expected {"token":"[secret]"}"#;
    assert_eq!(faults, [wrong]);
    assert!(text.contains("[secret]") && !text.contains("hunter22"), "{text}");
}

/// Grants are for the author's own cases: the contract tests connect to nobody.
#[test]
#[cfg(feature = "http")]
fn the_contract_reaches_nobody() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let rows = |cases: &str| {
        format!(
            r#"{{"settings": {{"url": "{url}", "signed": false, "timeout": "100ms"}}, "cases": [{cases}],
                "grants": {{"http": ["{url}"], "networks": ["127.0.0.0/8"]}}}}"#
        )
    };
    let webhook = super::sample("webhook");
    let (_, text) = faults(&webhook, &rows(""));
    assert!(text.contains("  ok     answers rows"), "{text}");
    assert!(server.accept().is_err(), "the contract called the server");
    faults(&webhook, &rows(r#"{"name": "a", "rows": [{"id": 1}]}"#));
    assert!(server.accept().is_ok(), "the author's own case did not call the server");
}

/// The contract tests need no grants, the author's own cases do.
#[test]
#[cfg(feature = "http")]
fn missing_grants_do_not_fail_the_contract_tests() {
    let folder = tempfile::TempDir::new().unwrap();
    let webhook = super::sample("webhook");
    let project = Project::at(folder.path());
    project.ok(&["plugin", "test", webhook.to_str().unwrap()]);
    std::fs::write(folder.path().join("rows.json"), r#"[{"id": 1}]"#).unwrap();
    let said = project.run(&["plugin", "test", webhook.to_str().unwrap(), "--rows", "rows.json"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("grant them in rows.json, as in \"grants\": {\"http\":"), "{}", said.stderr);
}

/// Failures of a plugin are reported by the contract tests.
#[test]
fn the_contract_tests_find_plugins_that_fail() {
    for (guest, words) in [
        ("traps", "a call ended without an answer: plugin panicked at"),
        ("answers_too_few", "outcomes for 2 rows; return a list with one for each row, in the same order"),
    ] {
        let report = tried(&crate::harness::guest(guest), ROWS);
        let faults: Vec<&str> = report["cases"].as_array().unwrap().iter().filter_map(|case| case["fault"].as_str()).collect();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{guest}: {faults:#?}");
    }
}

/// Skipping a row that the bus did not accept loses it, just like calling it sent.
#[test]
fn the_contract_tests_find_plugins_that_give_up_rows() {
    let folder = tempfile::TempDir::new().unwrap();
    let rows = folder.path().join("rows.json");
    let faults = |how: &str| {
        std::fs::write(&rows, format!(r#"{{"settings": {{"how": "{how}"}}, "cases": []}}"#)).unwrap();
        let report = tried(&crate::harness::guest("gives_up"), rows.to_str().unwrap());
        let cases = report["cases"].as_array().unwrap().clone();
        let fault = |case: &serde_json::Value| Some(format!("{}: {}", case["name"].as_str()?, case["fault"].as_str()?));
        cases.iter().filter_map(fault).collect::<Vec<_>>()
    };
    let skipped = "row 1 is skipped, and so deleted, but the bus has not accepted it yet";
    let rejected = "row 1 is rejected, and so becomes a dead letter, but the bus may accept it later";
    for (how, words) in [("skip", skipped), ("reject", rejected), ("always", skipped)] {
        let cases = ["keeps rows while the bus is unavailable", "keeps rows that the bus wants later"];
        assert_eq!(
            faults(how),
            cases.map(|case| format!("{case}: {words}: return what `publish` returned for it, or `retry`")),
            "{how}"
        );
    }
}

#[test]
fn an_invalid_file_of_rows_is_reported_with_the_location() {
    let folder = tempfile::TempDir::new().unwrap();
    let plugin = crate::harness::guest("sends");
    for (rows, words) in [
        ("[{\"id\": 1}, {\"total\": {\"int64\": \"x\"}}]", "row 2: column \"total\": invalid 64-bit integer {\"int64\": \"x\"}"),
        ("{\"cases\": [{\"name\": \"a\", \"rows\": [], \"expekt\": 1}]}", "unknown field `expekt`"),
        (
            "{\"cases\": [{\"name\": \"a\", \"rows\": [],\n\"expect\": {\"outcomes\": [\"snet\"]}}]}",
            "case \"a\": `outcomes`, row 1: unknown outcome \"snet\"; expected one of sent, skip, retry, reject, held; did you mean \"sent\"?",
        ),
        ("[{\"id\": 18446744073709551616}]", "write {\"decimal\": \"18446744073709551616\"}"),
        ("[{\"id\": 1},", "line 1"),
        ("{\"timeout\": \"30\", \"cases\": []}", "invalid duration \"30\"; expected"),
    ] {
        std::fs::write(folder.path().join("rows.json"), rows).unwrap();
        let said = Project::at(folder.path()).run(&["plugin", "test", plugin.to_str().unwrap(), "--rows", "rows.json"]);
        assert_eq!(said.status, 64, "{said:#?}");
        assert!(said.stderr.starts_with("error: rows.json: ") && said.stderr.contains(words), "{}", said.stderr);
    }
}
