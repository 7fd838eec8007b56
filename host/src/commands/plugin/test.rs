//! `plugin test`: runs a plugin against the contract and the author's own rows, and prints a report.
//!
//! The cases are in `signalbus_authoring::testing`; here is only how they are shown.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::{Exit, Failure, Output, print, print_json, printable};
use super::{engine, size};
use signalbus_authoring::testing::{CaseResult, PluginTest, Suite, cut};
use signalbus_core::message::Message;
use signalbus_plugin::LoadError;

/// The options of `plugin test`.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) plugin: PathBuf,
    /// The file of rows; by default `rows.json` beside the plugin, if it exists.
    pub(crate) rows: Option<PathBuf>,
    /// Show messages and logs of every case, not only of those that fail.
    pub(crate) show: bool,
    pub(crate) output: Output,
}

pub(crate) async fn run(request: Request) -> Result<Exit, Failure> {
    let rows = request.rows.clone().or_else(|| beside(&request.plugin));
    let suite = match &rows {
        Some(rows) => Suite::read(rows).map_err(|fault| Failure::new(Exit::Usage, fault))?,
        None => Suite::default(),
    };
    let test = PluginTest::new(engine()?, &request.plugin, suite);
    let mut report = Report { output: request.output, show: request.show, cases: Vec::new(), failed: None };
    let digest = test.load().await?.digest().to_owned();
    report.say(format_args!("{} {digest}", request.plugin.display()));
    report.say("\ncontract");
    test.contract(&mut |result| report.add("contract", result, false)).await?;
    if let Some(rows) = &rows {
        report.say(format_args!("\n{}", rows.display()));
        test.cases(&mut |result| report.add("rows", result, true)).await.map_err(|error| in_file(error, rows))?;
    }
    Ok(report.end(&request.plugin, &digest))
}

/// Adds where to grant what the plugin needs: in a test, that is the file of rows.
fn in_file(error: LoadError, rows: &Path) -> Failure {
    let remedy = match error {
        LoadError::Ungranted { .. } => {
            format!("; grant them in {}, as in \"grants\": {{\"http\": [\"https://api.example\"]}}", rows.display())
        }
        _ => String::new(),
    };
    Failure::new(Exit::Failed, format!("{error}{remedy}"))
}

/// The file of rows beside the plugin, as in a new project.
fn beside(plugin: &Path) -> Option<PathBuf> {
    Some(plugin.with_file_name("rows.json")).filter(|file| file.exists())
}

/// The results so far.
struct Report {
    output: Output,
    show: bool,
    cases: Vec<(&'static str, Value, bool)>,
    /// The first case that failed.
    failed: Option<CaseResult>,
}

impl Report {
    fn say(&self, text: impl std::fmt::Display) {
        if self.output == Output::Text {
            print(text);
        }
    }

    fn add(&mut self, part: &'static str, result: CaseResult, own: bool) {
        let passed = result.fault.is_none();
        let word = match (passed, result.judged) {
            (true, true) => "ok    ",
            (true, false) => "ran   ",
            (false, _) => "FAILED",
        };
        let (milliseconds, memory) = (result.time().as_secs_f64() * 1000.0, size(result.memory()));
        let cost =
            if result.memory() > 0 { format!("{milliseconds:8.1} ms {memory:>11}") } else { format!("{milliseconds:8.1} ms") };
        self.say(format_args!("  {word} {:<68} {cost}", printable(&result.name)));
        if let Some(fault) = &result.fault {
            self.say(format_args!("         {}", printable(fault)));
        }
        if own && (self.show || !result.judged) {
            details(&result).iter().for_each(|line| self.say(format_args!("         {line}")));
        }
        if self.output == Output::Json {
            self.cases.push((part, document(&result), passed));
        } else {
            self.cases.push((part, Value::Null, passed));
        }
        if !passed && self.failed.is_none() {
            self.failed = Some(result);
        }
    }

    fn end(self, plugin: &Path, digest: &str) -> Exit {
        let passed = self.cases.iter().filter(|(_, _, passed)| *passed).count();
        let all = self.cases.len();
        if self.output == Output::Json {
            let cases: Vec<Value> = self.cases.into_iter().map(|(part, case, _)| with(case, "part", part.into())).collect();
            print_json(json!({ "plugin": plugin, "digest": digest, "passed": passed, "failed": all - passed, "cases": cases }));
        } else {
            if let Some(failed) = &self.failed {
                print("");
                print(format_args!("first failure: {}", failed.name));
                print(format_args!("  {}", failed.fault.as_deref().unwrap_or_default()));
                details(failed).iter().for_each(|line| print(format_args!("  {line}")));
            }
            print("");
            print(format_args!("{passed} of {all} passed"));
        }
        if passed == all { Exit::Done } else { Exit::Failed }
    }
}

fn with(mut case: Value, key: &str, value: Value) -> Value {
    case[key] = value;
    case
}

/// The number of list entries that are shown.
const SHOWN: usize = 10;

/// Describes what a plugin answered, published and logged, in lines that are short enough to read.
pub(super) fn details(result: &CaseResult) -> Vec<String> {
    let mut lines = Vec::new();
    match &result.verdict {
        Ok(outcomes) => {
            shorten(&mut lines, "row", &signalbus_authoring::testing::outcomes(outcomes), |outcome| cut(&outcome.to_string()))
        }
        Err(outage) => lines.push(format!("outage {}", cut(&signalbus_authoring::testing::outage(outage).to_string()))),
    }
    shorten(&mut lines, "message", &result.messages, |message| readable(message_document(message)).to_string());
    shorten(&mut lines, "log", &result.records, |record| {
        let fields: Vec<String> =
            record.fields.iter().map(|(key, value)| format!("{key}={}", cut(&format!("{value:?}")))).collect();
        let message = cut(&record.message);
        format!("{} {} {}", record.level, printable(&message), fields.join(" ")).trim_end().to_owned()
    });
    let mut seen = HashSet::new();
    shorten(&mut lines, "call", &result.calls, |call| match &call.failure {
        None => format!("{:.1?}, {}", call.time, size(call.memory)),
        Some(failed) => {
            let backtrace = if seen.insert(&failed.backtrace) { &*failed.backtrace } else { "" };
            format!("{:.1?}, {}\n{backtrace}", call.time, printable(&cut(&failed.reason)))
        }
    });
    // Names in a backtrace come from the plugin.
    lines.iter().flat_map(|line| line.lines()).map(|line| printable(line).into_owned()).collect()
}

/// Cuts the parts of a message, each on its own, so that short parts are always complete.
fn readable(mut message: Value) -> Value {
    for part in message.as_object_mut().into_iter().flat_map(|parts| parts.values_mut()) {
        let text = part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        let short = cut(&text);
        if short != text {
            *part = short.into();
        }
    }
    message
}

fn shorten<'a, T>(lines: &mut Vec<String>, name: &str, list: &'a [T], mut line: impl FnMut(&'a T) -> String) {
    let shown = list.iter().take(SHOWN).enumerate();
    lines.extend(shown.map(|(n, entry)| format!("{name} {}: {}", n + 1, line(entry))));
    if list.len() > SHOWN {
        lines.push(format!("… {} more {name}s", list.len() - SHOWN));
    }
}

pub(super) fn document(result: &CaseResult) -> Value {
    let calls = result.calls.iter().map(|call| {
        json!({
            "milliseconds": call.time.as_secs_f64() * 1000.0,
            "memory": call.memory,
            "failure": call.failure.as_ref().map(|failed| json!({
                "kind": failed.kind, "reason": failed.reason, "backtrace": failed.backtrace,
            })),
        })
    });
    let logs = result.records.iter().map(|record| {
        let fields: serde_json::Map<String, Value> =
            record.fields.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        json!({ "level": record.level.as_str().to_lowercase(), "message": record.message, "fields": fields })
    });
    json!({
        "name": result.name,
        "fault": result.fault,
        "outcomes": result.verdict.as_ref().ok().map(|outcomes| signalbus_authoring::testing::outcomes(outcomes)),
        "outage": result.verdict.as_ref().err().map(signalbus_authoring::testing::outage),
        "messages": result.messages.iter().map(message_document).collect::<Vec<_>>(),
        "logs": logs.collect::<Vec<_>>(),
        "calls": calls.collect::<Vec<_>>(),
    })
}

fn message_document(message: &Message) -> Value {
    let pairs = |pairs: &[(String, String)]| -> serde_json::Map<String, Value> {
        pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
    };
    let body = match (serde_json::from_slice::<Value>(&message.body), std::str::from_utf8(&message.body)) {
        (Ok(json), _) => json!({ "body": json }),
        (_, Ok(text)) => json!({ "text": text }),
        _ => {
            json!({ "bytes": signalbus_authoring::testing::json(&signalbus_core::signal::Value::Bytes(message.body.clone()))["bytes"] })
        }
    };
    let mut document = json!({ "connection": message.connection, "destination": message.destination });
    let mut put = |key: &str, value: Value| {
        if !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()) {
            document[key] = value;
        }
    };
    put("key", message.key.as_deref().into());
    put("content_type", message.content_type.as_deref().into());
    put("headers", pairs(&message.headers).into());
    put("id", message.id.as_deref().into());
    put("options", pairs(&message.options).into());
    for (key, value) in body.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
    document
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use signalbus_core::signal::Outcome;
    use signalbus_plugin::{Call, Failed, Record};

    #[test]
    fn details_are_short_and_harmless() {
        let long = || "x".repeat(10_000);
        let bodies =
            [long().into_bytes(), format!("{{\"a\": \"{}\"}}", long()).into_bytes(), vec![0xff; 10_000], b"{\"a\": 1}".to_vec()];
        let message = |body| Message { destination: "orders".into(), key: Some(long()), body, ..Message::default() };
        let backtrace = "0: 0x1 - a\u{1b}[2J\n1: 0x2 - b\u{9b}31m".to_owned();
        let failed = Failed { kind: "trap", reason: format!("two\nlines\u{7f} {}", long()), backtrace };
        let result = CaseResult {
            name: "a".into(),
            rows: 1,
            verdict: Ok(vec![Outcome::retry(long())]),
            messages: bodies.map(message).into(),
            records: vec![Record { level: tracing::Level::INFO, message: long(), fields: vec![("a\u{1b}".into(), long())] }],
            calls: vec![Call { time: Duration::ZERO, memory: 0, failure: Some(failed), ..Call::default() }],
            fault: None,
            judged: false,
            batched: true,
        };
        let lines = details(&result);
        assert!(lines.iter().all(|line| line.chars().count() < 1000 && !line.contains(char::is_control)), "{lines:#?}");
        let messages: Vec<&String> = lines.iter().filter(|line| line.starts_with("message ")).collect();
        assert!(messages.iter().all(|line| line.contains(r#""destination":"orders""#) && line.contains('…')), "{messages:#?}");
        assert!(messages[3].contains(r#""body":{"a":1}"#), "{messages:#?}");
        assert!(
            lines.contains(&"0: 0x1 - a\\u{1b}[2J".to_owned()) && lines.contains(&"1: 0x2 - b\\u{9b}31m".to_owned()),
            "{lines:#?}"
        );
        // JSON is never cut.
        assert_eq!(document(&result)["messages"][0]["text"], long());
    }
}
