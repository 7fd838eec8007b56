//! Wrong answers: what the relay says to the author of a plugin whose language has no compiler to find them.

use std::path::Path;

use super::in_each_language;
use crate::harness::command::{Project, config};
use crate::harness::database::Database;

/// What is returned by a setting `answer`, and what the relay says was returned.
const PYTHON: [(&str, &str); 11] = [
    ("nothing", "None"),
    ("text", "'sent'"),
    ("outcome", "Outcome_Sent()"),
    ("coroutine", "a coroutine, as `async def` does"),
    ("texts", "a value of class str as an outcome or outage"),
    ("nothings", "a value of class NoneType as an outcome or outage"),
    ("classes", "a class, not an object of it, as an outcome or outage"),
    ("retry without record", "a wrong value in place of a Retry ('str' object has no attribute 'after_ms')"),
    ("reason of a number", "an invalid reason ('int' object is not an instance of 'str')"),
    ("delay of a fraction", "an invalid `after_ms` ('float' object cannot be interpreted as an integer)"),
    ("negative delay", "an invalid `after_ms` (can't convert negative int to unsigned)"),
];

const JAVASCRIPT: [(&str, &str); 13] = [
    ("nothing", "undefined"),
    ("null", "null"),
    ("text", "`s` as an outcome"),
    ("texts", "`sent` as an outcome"),
    ("nothings", "undefined as an outcome or outage"),
    ("promises", "`[object Promise]` as an outcome"),
    ("no tag", "an object without `tag` as an outcome"),
    ("unknown tag", "an outcome with the unknown tag \"snet\""),
    ("retry without record", "a retry whose `val` is undefined"),
    ("reason of a number", "a reason of type number"),
    ("reason of nothing", "a reason of type undefined"),
    ("delay of a fraction", "an invalid `afterMs` (1.5 can't be converted to BigInt because it isn't an integer)"),
    ("delay of text", "an invalid `afterMs` (invalid BigInt syntax)"),
];

const TOO_FEW: &str = "0 outcomes for 1 rows; return a list with one for each row, in the same order";

/// Builds a plugin that returns what its settings say.
fn built(folder: &Path, language: &str) -> Project {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/plugins/answers");
    Project::at(folder).ok(&["plugin", "new", "answers", "--lang", language]);
    let project = Project::at(&folder.join("answers"));
    let source = if language == "python" { "plugin.py" } else { "plugin.js" };
    std::fs::copy(sources.join(source), project.folder().join(source)).unwrap();
    // What `make plugins` has installed for the sample.
    let packages = sources.join("../../../plugins").join(language).join("node_modules");
    if packages.exists() {
        std::os::unix::fs::symlink(packages.canonicalize().unwrap(), project.folder().join("node_modules")).unwrap();
    }
    project.ok(&["plugin", "build"]);
    project
}

/// Returns what `plugin test` says of each answer, in this order.
fn faults(project: &Project, answers: &[&str]) -> Vec<String> {
    let case = |answer: &&str| serde_json::json!({"name": answer, "rows": [{"id": 1}], "settings": {"answer": answer}});
    let cases: Vec<_> = answers.iter().map(case).collect();
    std::fs::write(project.folder().join("rows.json"), serde_json::json!({"cases": cases}).to_string()).unwrap();
    let report = project.run(&["plugin", "test", "--json"]).json();
    let cases = report["cases"].as_array().unwrap().iter().filter(|case| case["part"] == "rows");
    cases.map(|case| case["fault"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn a_wrong_answer_is_explained(language: &str) {
    let folder = tempfile::TempDir::new().unwrap();
    let project = built(folder.path(), language);
    let python = language == "python";
    let (answers, function, expected) = match python {
        true => (&PYTHON[..], "send_signalbus_messages", "a list with one of these for each signal: Outcome_Sent(), "),
        false => (&JAVASCRIPT[..], "sendSignalbusMessages", "an array with one of these for each signal: { tag: \"sent\" }, "),
    };
    let names: Vec<&str> = answers.iter().map(|(answer, _)| *answer).collect();
    for ((answer, returned), told) in answers.iter().zip(faults(&project, &names)) {
        let wanted =
            format!("a call ended without an answer: the plugin's `{function}` returned {returned}, expected {expected}");
        assert!(told.starts_with(&wanted) && !told.contains("answer `reject`"), "{answer}: {told}");
    }
    match python {
        true => others_of_python(&faults(&project, &["too few", "no outage", "body of text"])),
        false => others_of_javascript(&faults(&project, &["too few", "outcome", "no outage", "a promise"])),
    }
    the_relay_says_the_same(&project.folder().join("plugin.wasm"), function).await;
}

fn others_of_python(faults: &[String]) {
    let [few, outage, argument] = faults else { panic!("{faults:#?}") };
    assert_eq!(few, TOO_FEW);
    assert!(outage.contains("returned a value of class str as an outcome or outage"), "{outage}");
    let passed = "the plugin called `publish` with 'text', expected a value of class bytes";
    assert_eq!(*argument, format!("a call ended without an answer: {passed}"));
}

fn others_of_javascript(faults: &[String]) {
    let [few, outcome, outage, promise] = faults else { panic!("{faults:#?}") };
    // Of a value that is no array, the generated code sees no length.
    assert_eq!([few, outcome], [TOO_FEW; 2]);
    assert!(outage.contains("plugin trapped: uncaught down (throw an outage"), "{outage}");
    assert_eq!(promise, "");
}

async fn the_relay_says_the_same(plugin: &Path, function: &str) {
    let database = Database::sqlite().await;
    database.run("CREATE TABLE order_placed (id INTEGER PRIMARY KEY); INSERT INTO order_placed VALUES (1), (2)").await;
    let more = format!(
        "[signals.OrderPlaced]\nplugin = {plugin:?}\nsettings = {{ answer = 'nothing' }}\nretry = {{ max_attempts = 1 }}\n"
    );
    let project = Project::new(database.folder(), &(config(&database.url, &[]) + &more));
    let said = project.run(&["flush", "-w", "0"]);
    let reasons = database.lines("SELECT reason FROM signalbus_hold WHERE state = 'dead'").await;
    let wanted = format!("the plugin's `{function}` returned ");
    assert!(reasons.len() == 2 && reasons.iter().all(|reason| reason.starts_with(&wanted)), "{reasons:?} {said:#?}");
    let told: Vec<&str> = said.stderr.lines().filter(|line| line.contains("plugin stopped")).collect();
    assert!(told.len() == 1 && told[0].contains(&wanted), "{}", said.stderr);
    // The stack of the runtime does not help.
    assert!(!said.stderr.contains("abort_internal") && !said.stderr.contains("<wasm function"), "{}", said.stderr);
}

// (TypeScript has the runtime of JavaScript.)
in_each_language!(a_wrong_answer_is_explained: python, javascript);
