//! What a case expects, and the first difference between that and the result.
//!
//! Checks nothing that the case does not mention, and shows nothing that has not passed `redactor`.
//! `file` reads it.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::answer::{Answer, Found, Outcomes};
use super::redactor::{Redactor, object};
use super::{CaseResult, unknown};
use signalbus_core::message::Message;
use signalbus_core::signal::Outcome;
use signalbus_plugin::Record;

/// The expectations of a case. Whatever it does not mention is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    #[serde(default, deserialize_with = "Outcomes::read")]
    outcomes: Option<Outcomes>,
    #[serde(default, deserialize_with = "Answer::read_outage")]
    outage: Option<Answer>,
    /// One of `FAILURES`.
    #[serde(default, deserialize_with = "read_failure")]
    failure: Option<String>,
    messages: Option<Vec<Expected>>,
    /// The number of messages.
    published: Option<usize>,
    logs: Option<Vec<Log>>,
}

/// The kinds of failure of a call, and `any` for all of them.
const FAILURES: [&str; 6] = ["trap", "deadline", "memory", "exit", "other", ANY];
pub(super) const ANY: &str = "any";

fn read_failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(kind) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if FAILURES.contains(&kind.as_str()) {
        return Ok(Some(kind));
    }
    Err(D::Error::custom(format!("`failure`: {}", unknown(&kind, "kind of failure", FAILURES.into_iter()))))
}

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

fn read_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(level) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(&level)) {
        return Ok(Some(level));
    }
    Err(D::Error::custom(format!("`logs`: {}", unknown(&level, "level", LEVELS.into_iter()))))
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    connection: Option<String>,
    destination: Option<String>,
    key: Option<String>,
    content_type: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    /// The body as JSON.
    body: Option<Json>,
    /// Whether the body is JSON.
    is_json: Option<bool>,
    text: Option<String>,
    id: Option<String>,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default, deserialize_with = "read_level")]
    level: Option<String>,
    message: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

impl Expect {
    /// Returns the first difference from the expectations.
    pub(super) fn fault(&self, result: &CaseResult, redactor: &Redactor) -> Option<String> {
        self.failure(result, redactor)
            .or_else(|| result.wrong_answer())
            .or_else(|| self.answer(result, redactor))
            .or_else(|| self.published(&result.messages, redactor))
            .or_else(|| self.logs.iter().flatten().find_map(|log| log.fault(&result.records, redactor)))
    }

    /// Explains expectations that contradict each other.
    pub(super) fn contradiction(&self) -> Option<String> {
        if self.outage.is_some() && self.outcomes.is_some() {
            return Some("`outage` and `outcomes` are both expected; an outage answers for all rows, so remove one".to_owned());
        }
        let (published, messages) = (self.published?, self.messages.as_ref()?.len());
        let fault = || format!("`published` is {published}, but `messages` lists {messages}; remove `published`");
        (published != messages).then(fault)
    }

    /// Whether a call is expected to fail.
    pub(super) fn expects_failure(&self) -> bool {
        self.failure.is_some()
    }

    fn failure(&self, result: &CaseResult, redactor: &Redactor) -> Option<String> {
        let expected = self.failure.as_deref();
        result.failed_call(expected, redactor).or_else(|| {
            let expected = expected.filter(|_| result.failures().next().is_none())?;
            let kind = if expected == ANY { String::new() } else { format!(" with \"{expected}\"") };
            Some(format!("every call was answered, expected one to fail{kind}"))
        })
    }

    fn answer(&self, result: &CaseResult, redactor: &Redactor) -> Option<String> {
        match (&self.outage, &self.outcomes, &result.verdict) {
            (Some(expected), _, Err(outage)) => {
                expected.fault(&Found::from_outage(outage), redactor).map(|fault| format!("the outage {fault}"))
            }
            (Some(expected), _, Ok(outcomes)) => Some(format!(
                "the answer is {}, expected the outage {}",
                listed(outcomes, redactor),
                redactor.json(expected.json())
            )),
            (None, Some(_), Err(outage)) => {
                Some(format!("the answer is the outage {}, expected outcomes", redactor.json(Found::from_outage(outage).json())))
            }
            (None, Some(Outcomes::All(expected)), Ok(outcomes)) => {
                outcomes.iter().enumerate().find_map(|(n, outcome)| of_row(n, expected, outcome, redactor))
            }
            (None, Some(Outcomes::Each(expected)), Ok(outcomes)) if expected.len() != outcomes.len() => {
                Some(format!("there are {} outcomes, expected {}", outcomes.len(), expected.len()))
            }
            (None, Some(Outcomes::Each(expected)), Ok(outcomes)) => expected
                .iter()
                .zip(outcomes)
                .enumerate()
                .find_map(|(n, (expected, outcome))| of_row(n, expected, outcome, redactor)),
            (None, None, _) => None,
        }
    }

    fn published(&self, messages: &[Message], redactor: &Redactor) -> Option<String> {
        let expected = self.messages.as_ref();
        let count = self.published.or(expected.map(Vec::len))?;
        if messages.len() != count {
            return Some(format!("{} messages were published, expected {count}", messages.len()));
        }
        let pairs = expected.into_iter().flatten().zip(messages).enumerate();
        pairs.into_iter().find_map(|(n, (expected, message))| {
            expected.fault(message, redactor).map(|fault| format!("message {}: {fault}", n + 1))
        })
    }
}

fn of_row(index: usize, expected: &Answer, outcome: &Outcome, redactor: &Redactor) -> Option<String> {
    expected.fault(&Found::from_outcome(outcome), redactor).map(|fault| format!("row {}: the outcome {fault}", index + 1))
}

/// The number of list entries that a fault shows.
const LISTED: usize = 5;

fn list<T>(entries: &[T], show: impl Fn(&T) -> String) -> String {
    let listed: Vec<String> = entries.iter().take(LISTED).map(show).collect();
    let more = if entries.len() > LISTED { ", …" } else { "" };
    format!("[{}{more}]", listed.join(", "))
}

fn listed(outcomes: &[Outcome], redactor: &Redactor) -> String {
    list(outcomes, |outcome| redactor.json(Found::from_outcome(outcome).json()))
}

impl Expected {
    fn fault(&self, message: &Message, redactor: &Redactor) -> Option<String> {
        let text = |name: &str, expected: &Option<String>, found: Option<&str>| {
            let expected = expected.as_deref()?;
            let fault = || format!("`{name}` is {}, expected {}", redactor.json(found), redactor.json(expected));
            (Some(expected) != found).then(fault)
        };
        let body = &message.body;
        text("connection", &self.connection, Some(&message.connection))
            .or_else(|| text("destination", &self.destination, Some(&message.destination)))
            .or_else(|| text("key", &self.key, message.key.as_deref()))
            .or_else(|| text("content_type", &self.content_type, message.content_type.as_deref()))
            .or_else(|| pairs("headers", self.headers.as_ref(), &message.headers, redactor))
            .or_else(|| self.body.as_ref().and_then(|expected| body_fault(expected, body, redactor)))
            .or_else(|| self.is_json.and_then(|is_json| json_fault(is_json, body, redactor)))
            .or_else(|| text("text", &self.text, std::str::from_utf8(body).ok()))
            .or_else(|| text("id", &self.id, message.id.as_deref()))
            .or_else(|| pairs("options", self.options.as_ref(), &message.options, redactor))
    }
}

fn pairs(
    name: &str,
    expected: Option<&BTreeMap<String, String>>,
    found: &[(String, String)],
    redactor: &Redactor,
) -> Option<String> {
    let expected = expected?;
    let sorted: BTreeMap<String, String> = found.iter().cloned().collect();
    let fault = || format!("`{name}` are {}, expected {}", redactor.json(object(&sorted)), redactor.json(object(expected)));
    (*expected != sorted).then(fault)
}

fn json_fault(expected: bool, body: &[u8], redactor: &Redactor) -> Option<String> {
    let found = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    (found != expected).then(|| format!("`is_json` is {found}, expected {expected}: {}", redactor.body(body)))
}

fn body_fault(expected: &Json, body: &[u8], redactor: &Redactor) -> Option<String> {
    match serde_json::from_slice::<Json>(body) {
        Err(error) => Some(format!("`body` is not JSON: {error}: {}", redactor.body(body))),
        Ok(found) => difference("body", expected, &found, redactor),
    }
}

/// Returns the first place where two documents differ.
fn difference(path: &str, expected: &Json, found: &Json, redactor: &Redactor) -> Option<String> {
    let at = |key: &str| redactor.text(&format!("{path}.{key}"));
    match (expected, found) {
        (Json::Object(expected), Json::Object(found)) => {
            let missing = expected.keys().find(|key| !found.contains_key(*key)).map(|key| format!("`{}` is missing", at(key)));
            let surplus =
                found.keys().find(|key| !expected.contains_key(*key)).map(|key| format!("`{}` is not expected", at(key)));
            let inside = || expected.iter().find_map(|(key, value)| difference(&at(key), value, &found[key], redactor));
            missing.or(surplus).or_else(inside)
        }
        (Json::Array(expected), Json::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.find_map(|(n, (expected, found))| difference(&format!("{path}[{n}]"), expected, found, redactor))
        }
        (Json::Number(a), Json::Number(b)) if same(a, b) => None,
        _ => (expected != found)
            .then(|| format!("`{path}` is {}, expected {}", redactor.json(found.clone()), redactor.json(expected.clone()))),
    }
}

/// Compares numbers: `5` equals `5.0`, and integers are compared to the last digit.
fn same(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64() && a.as_f64().is_some_and(|value| value.abs() < 9e15)
}

impl Log {
    fn fault(&self, records: &[Record], redactor: &Redactor) -> Option<String> {
        let found = records.iter().any(|record| {
            self.level.as_ref().is_none_or(|level| record.level.as_str().eq_ignore_ascii_case(level))
                && self.message.as_ref().is_none_or(|message| record.message == *message)
                && self.fields.iter().all(|(key, value)| record.fields.iter().any(|(k, v)| k == key && v == value))
        });
        (!found).then(|| {
            let logged = list(records, |record| redactor.json(Self::from_record(record).json()));
            format!("no log record matches {}; logged {logged}", redactor.json(self.json()))
        })
    }

    fn from_record(record: &Record) -> Self {
        let level = record.level.as_str().to_lowercase();
        Self { level: Some(level), message: Some(record.message.clone()), fields: record.fields.iter().cloned().collect() }
    }

    /// Writes a record as in a file of rows.
    fn json(&self) -> Json {
        let mut json = serde_json::Map::new();
        let texts = [("level", &self.level), ("message", &self.message)];
        json.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.as_deref()?.into()))));
        if !self.fields.is_empty() {
            json.insert("fields".to_owned(), object(&self.fields));
        }
        json.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbus_plugin::{Call, Failed, Grants};

    fn differ(expected: &str, found: &str) -> Option<String> {
        let [expected, found] = [expected, found].map(|text| serde_json::from_str(text).unwrap());
        difference("body", &expected, &found, &Redactor::default())
    }

    #[test]
    fn numbers_are_equal_in_any_notation_and_integers_to_the_last_digit() {
        assert_eq!(differ("{\"a\": 5.0, \"b\": [1e2]}", "{\"b\": [100], \"a\": 5}"), None);
        let rounded = differ("[9007199254740993]", "[9007199254740992]");
        assert_eq!(rounded.unwrap(), "`body[0]` is 9007199254740992, expected 9007199254740993");
        assert!(differ("[9007199254740993]", "[9007199254740993.0]").is_some());
    }

    #[test]
    fn unknown_answers_are_rejected() {
        for (json, words) in [
            (
                r#"{"outcomes": ["sent", "snet"]}"#,
                "`outcomes`, row 2: unknown outcome \"snet\"; expected one of sent, skip, retry, reject, held; did you mean \"sent\"?",
            ),
            (r#"{"outcomes": "gone"}"#, "`outcomes`: unknown outcome \"gone\"; expected one of sent"),
            (r#"{"outcomes": [{"retry": 5}]}"#, "`outcomes`, row 1: the reason of \"retry\" is 5; expected a string"),
            (
                r#"{"outcomes": [{"retry": "x", "after": 5}]}"#,
                "unknown key \"after\" beside \"retry\"; only \"after_ms\" is allowed",
            ),
            (r#"{"outcomes": [{"retry": "x", "after_ms": "5"}]}"#, "\"after_ms\" is \"5\"; expected a number"),
            (r#"{"outcomes": [{"reject": "x", "after_ms": 5}]}"#, "\"reject\" takes no \"after_ms\""),
            (r#"{"outcomes": [{"after_ms": 5}]}"#, "no outcome in {\"after_ms\":5}; expected one of sent"),
            (r#"{"outcomes": [{"sent": ""}]}"#, "\"sent\" takes no reason and no time"),
            (r#"{"outcomes": [5]}"#, "invalid outcome 5; expected e.g. \"sent\""),
            (
                r#"{"outage": "unavailble"}"#,
                "`outage`: unknown outage \"unavailble\"; expected one of unavailable, misconfigured; did",
            ),
            (r#"{"outage": {"retry": "x"}}"#, "unknown outage \"retry\""),
            (
                r#"{"failure": "panic"}"#,
                "`failure`: unknown kind of failure \"panic\"; expected one of trap, deadline, memory, exit, other, any",
            ),
            (
                r#"{"logs": [{"level": "warning"}]}"#,
                "`logs`: unknown level \"warning\"; expected one of trace, debug, info, warn, error",
            ),
        ] {
            let error = serde_json::from_str::<Expect>(json).unwrap_err().to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
        let read = serde_json::from_str::<Expect>(
            r#"{"outcomes": ["held", {"retry": "x", "after_ms": null}, {"reject": "y"}], "outage": null, "failure": "any", "logs": [{"level": "INFO"}]}"#,
        );
        assert!(matches!(read.unwrap().outcomes, Some(Outcomes::Each(answers)) if answers.len() == 3));
    }

    fn result(outcomes: usize, failures: &[&'static str]) -> CaseResult {
        let failed = |kind| Failed { kind, reason: format!("it failed by {kind}"), backtrace: String::new() };
        let calls = failures.iter().map(|kind| Call { failure: Some(failed(*kind)), ..Call::default() });
        CaseResult {
            name: "a".into(),
            rows: 2,
            verdict: Ok(vec![Outcome::Sent; outcomes]),
            messages: vec![],
            records: vec![],
            calls: calls.chain([Call { wrong_length: (outcomes != 2).then_some((outcomes, 2)), ..Call::default() }]).collect(),
            fault: None,
            judged: false,
            batched: true,
        }
    }

    fn fault(expect: &str, result: &CaseResult) -> Option<String> {
        serde_json::from_str::<Expect>(expect).unwrap().fault(result, &Redactor::default())
    }

    #[test]
    fn a_failed_call_is_a_fault_unless_it_is_expected() {
        let sent = r#"{"outcomes": "sent"}"#;
        assert_eq!(fault(sent, &result(2, &[])), None);
        let words = fault(sent, &result(2, &["trap"])).unwrap();
        assert!(words.starts_with("a call ended without an answer: it failed by trap; answer `reject`"), "{words}");
        assert_eq!(fault(r#"{"outcomes": "sent", "failure": "trap"}"#, &result(2, &["trap", "trap"])), None);
        assert_eq!(fault(r#"{"outcomes": "sent", "failure": "any"}"#, &result(2, &["trap", "exit"])), None);
        let words = fault(r#"{"failure": "trap"}"#, &result(2, &["trap", "memory"])).unwrap();
        assert!(words.starts_with("a call ended without an answer, expected failure \"trap\": it failed by memory"), "{words}");
        let words = fault(r#"{"failure": "any"}"#, &result(2, &[])).unwrap();
        assert_eq!(words, "every call was answered, expected one to fail");
        assert!(fault("{}", &result(1, &[])).unwrap().starts_with("1 outcomes for 2 rows;"));
    }

    #[test]
    fn advice_names_the_setting_to_change() {
        let advice = |kind| fault("{}", &result(2, &[kind])).unwrap().split_once("; ").unwrap().1.to_owned();
        assert_eq!(advice("memory"), "raise `memory`, or lower `burst_count`");
        assert_eq!(advice("deadline"), "raise `timeout`, or lower `burst_count`");
        assert!(advice("exit").starts_with("answer `reject`"));
        let alone = |kind| fault("{}", &CaseResult { batched: false, ..result(2, &[kind]) }).unwrap();
        assert!(alone("memory").ends_with("; raise `memory`") && alone("deadline").ends_with("; raise `timeout`"));
    }

    #[test]
    fn a_missing_log_record_is_shown_as_in_the_file() {
        let record = |message: &str| Record {
            level: tracing::Level::INFO,
            message: message.into(),
            fields: vec![("n".into(), "1".into())],
        };
        let result = CaseResult { records: vec![record("sent"), record(&"x".repeat(1000))], ..result(2, &[]) };
        let words = fault(r#"{"logs": [{"level": "info", "message": "published"}]}"#, &result).unwrap();
        let begin = r#"no log record matches {"level":"info","message":"published"}; logged [{"fields":{"n":"1"},"level":"info","message":"sent"}, "#;
        assert!(words.starts_with(begin) && words.ends_with("xxx…]") && words.len() < 600, "{words}");
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let grants = Grants { secrets: vec![("token".into(), "hunter22".into())], ..Grants::default() };
        let message = |token: &str| Message {
            headers: vec![("token".into(), token.into())],
            body: b"{\"token\": \"hunter22\"}".to_vec(),
            ..Message::default()
        };
        let expect = r#"{"messages": [{"headers": {"token": "hunter22"}, "body": {"token": "hunter22"}}]}"#;
        let expect: Expect = serde_json::from_str(expect).unwrap();
        let fault = |token: &str| {
            expect.fault(&CaseResult { messages: vec![message(token)], ..result(2, &[]) }, &Redactor::for_grants(&grants))
        };
        assert_eq!(fault("hunter22"), None);
        let words = fault("hunter2").unwrap();
        assert_eq!(words, r#"message 1: `headers` are {"token":"hunter2"}, expected {"token":"[secret]"}"#);
    }

    #[test]
    fn a_difference_is_reported_with_its_place() {
        assert_eq!(differ("{\"a\": {\"b\": 1}}", "{\"a\": {}}").unwrap(), "`body.a.b` is missing");
        assert_eq!(differ("{}", "{\"c\": 1}").unwrap(), "`body.c` is not expected");
        assert_eq!(differ("{\"a\": \"x\"}", "{\"a\": null}").unwrap(), "`body.a` is null, expected \"x\"");
    }
}
