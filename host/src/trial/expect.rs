//! What a case expects, and the first difference from it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::Ran;
use crate::message::Message;
use crate::plugin::Record;
use crate::signal::{Outage, Outcome};

/// What a case expects; what it does not name may be as it will.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    outcomes: Option<Outcomes>,
    outage: Option<Answer>,
    /// `trap`, `deadline`, `memory` or `exit`.
    failure: Option<String>,
    messages: Option<Vec<Expected>>,
    /// The number of messages.
    published: Option<usize>,
    logs: Option<Vec<Log>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Outcomes {
    All(String),
    Each(Vec<Answer>),
}

/// `"sent"`, or `{"retry": "part of the reason", "after_ms": 1500}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Kind(String),
    Full(BTreeMap<String, Json>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    connection: Option<String>,
    destination: Option<String>,
    key: Option<String>,
    content_type: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    /// As JSON.
    body: Option<Json>,
    /// Whether it is JSON at all.
    is_json: Option<bool>,
    text: Option<String>,
    id: Option<String>,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    level: Option<String>,
    message: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

impl Expect {
    /// The first difference from what is expected.
    pub(super) fn fault(&self, ran: &Ran) -> Option<String> {
        self.failure(ran)
            .or_else(|| self.answer(ran))
            .or_else(|| self.published(&ran.messages))
            .or_else(|| self.logs.iter().flatten().find_map(|log| log.fault(&ran.records)))
    }

    fn failure(&self, ran: &Ran) -> Option<String> {
        let expected = self.failure.as_deref()?;
        match ran.failure() {
            Some(failed) if failed.kind == expected => None,
            Some(failed) => Some(format!("a call failed by {} ({}), expected {expected}", failed.kind, failed.reason)),
            None => Some(format!("every call was answered, expected one to fail by {expected}")),
        }
    }

    fn answer(&self, ran: &Ran) -> Option<String> {
        match (&self.outage, &self.outcomes, &ran.verdict) {
            (Some(expected), _, Err(outage)) => {
                expected.fault(&Found::of_outage(outage)).map(|fault| format!("the outage {fault}"))
            }
            (Some(expected), _, Ok(outcomes)) => {
                Some(format!("the answer is {}, expected the outage {}", listed(outcomes), expected.shown()))
            }
            (None, Some(_), Err(outage)) => {
                Some(format!("the answer is the outage {}, expected outcomes", Found::of_outage(outage).shown()))
            }
            (None, Some(Outcomes::All(_)), Ok(outcomes)) if outcomes.len() != ran.rows => {
                Some(format!("there are {} outcomes for {} rows", outcomes.len(), ran.rows))
            }
            (None, Some(Outcomes::All(kind)), Ok(outcomes)) => {
                let expected = Answer::Kind(kind.clone());
                outcomes.iter().enumerate().find_map(|(n, outcome)| of_row(n, &expected, outcome))
            }
            (None, Some(Outcomes::Each(expected)), Ok(outcomes)) if expected.len() != outcomes.len() => {
                Some(format!("there are {} outcomes, expected {}", outcomes.len(), expected.len()))
            }
            (None, Some(Outcomes::Each(expected)), Ok(outcomes)) => {
                expected.iter().zip(outcomes).enumerate().find_map(|(n, (expected, outcome))| of_row(n, expected, outcome))
            }
            (None, None, _) => None,
        }
    }

    fn published(&self, messages: &[Message]) -> Option<String> {
        let expected = self.messages.as_ref();
        let count = self.published.or(expected.map(Vec::len))?;
        if messages.len() != count {
            return Some(format!("{} messages were published, expected {count}", messages.len()));
        }
        let pairs = expected.into_iter().flatten().zip(messages).enumerate();
        pairs
            .into_iter()
            .find_map(|(n, (expected, message))| expected.fault(message).map(|fault| format!("message {}: {fault}", n + 1)))
    }
}

fn of_row(index: usize, expected: &Answer, outcome: &Outcome) -> Option<String> {
    expected.fault(&Found::of(outcome)).map(|fault| format!("row {}: the outcome {fault}", index + 1))
}

fn listed(outcomes: &[Outcome]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = outcomes.iter().take(SHOWN).map(|outcome| Found::of(outcome).shown()).collect();
    let more = if outcomes.len() > SHOWN { ", …" } else { "" };
    format!("[{}{more}]", shown.join(", "))
}

/// An outcome or an outage, taken apart.
pub(super) struct Found<'a> {
    kind: &'static str,
    reason: &'a str,
    after_ms: Option<u64>,
}

impl<'a> Found<'a> {
    pub(super) fn of(outcome: &'a Outcome) -> Self {
        let (kind, reason, after) = match outcome {
            Outcome::Sent => ("sent", "", None),
            Outcome::Skip => ("skip", "", None),
            Outcome::Retry { reason, after } => ("retry", reason.as_str(), *after),
            Outcome::Reject { reason } => ("reject", reason.as_str(), None),
            Outcome::Held => ("held", "", None),
        };
        Self { kind, reason, after_ms: after.map(millis) }
    }

    pub(super) fn of_outage(outage: &'a Outage) -> Self {
        match outage {
            Outage::Unavailable { reason, after } => Self { kind: "unavailable", reason, after_ms: after.map(millis) },
            Outage::Misconfigured { reason } => Self { kind: "misconfigured", reason, after_ms: None },
        }
    }

    /// As it is written in a file.
    pub(super) fn json(&self) -> Json {
        match (self.reason, self.after_ms) {
            ("", None) => Json::from(self.kind),
            (reason, None) => serde_json::json!({ self.kind: reason }),
            (reason, Some(after_ms)) => serde_json::json!({ self.kind: reason, "after_ms": after_ms }),
        }
    }

    fn shown(&self) -> String {
        self.json().to_string()
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Answer {
    fn fault(&self, found: &Found<'_>) -> Option<String> {
        let fits = match self {
            Self::Kind(kind) => found.kind == kind,
            Self::Full(parts) => parts.iter().all(|(key, value)| match key.as_str() {
                "after_ms" => found.after_ms == value.as_u64(),
                kind => found.kind == kind && found.reason.contains(value.as_str().unwrap_or_default()),
            }),
        };
        (!fits).then(|| format!("is {}, expected {}", found.shown(), self.shown()))
    }

    fn shown(&self) -> String {
        match self {
            Self::Kind(kind) => format!("{kind:?}"),
            Self::Full(parts) => serde_json::json!(parts).to_string(),
        }
    }
}

impl Expected {
    fn fault(&self, message: &Message) -> Option<String> {
        let text = |name: &str, expected: &Option<String>, found: Option<&str>| {
            let expected = expected.as_deref()?;
            (Some(expected) != found).then(|| format!("`{name}` is {found:?}, expected {expected:?}"))
        };
        text("connection", &self.connection, Some(&message.connection))
            .or_else(|| text("destination", &self.destination, Some(&message.destination)))
            .or_else(|| text("key", &self.key, message.key.as_deref()))
            .or_else(|| text("content_type", &self.content_type, message.content_type.as_deref()))
            .or_else(|| pairs("headers", self.headers.as_ref(), &message.headers))
            .or_else(|| self.body.as_ref().and_then(|body| body_fault(body, &message.body)))
            .or_else(|| self.is_json.and_then(|is_json| json_fault(is_json, &message.body)))
            .or_else(|| text("text", &self.text, std::str::from_utf8(&message.body).ok()))
            .or_else(|| text("id", &self.id, message.id.as_deref()))
            .or_else(|| pairs("options", self.options.as_ref(), &message.options))
    }
}

fn pairs(name: &str, expected: Option<&BTreeMap<String, String>>, found: &[(String, String)]) -> Option<String> {
    let expected = expected?;
    let sorted: BTreeMap<String, String> = found.iter().cloned().collect();
    (*expected != sorted).then(|| format!("`{name}` are {sorted:?}, expected {expected:?}"))
}

fn json_fault(expected: bool, body: &[u8]) -> Option<String> {
    let found = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let text = || format!("`is_json` is {found}, expected {expected}: {}", String::from_utf8_lossy(body));
    (found != expected).then(text)
}

fn body_fault(expected: &Json, body: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Json>(body) {
        Err(error) => Some(format!("`body` is no JSON: {error}: {}", String::from_utf8_lossy(body))),
        Ok(found) => difference("body", expected, &found),
    }
}

/// The first place in which two documents differ.
fn difference(path: &str, expected: &Json, found: &Json) -> Option<String> {
    match (expected, found) {
        (Json::Object(expected), Json::Object(found)) => {
            let missing = expected.keys().find(|key| !found.contains_key(*key)).map(|key| format!("`{path}.{key}` is missing"));
            let surplus =
                found.keys().find(|key| !expected.contains_key(*key)).map(|key| format!("`{path}.{key}` is not expected"));
            let inside = || expected.iter().find_map(|(key, value)| difference(&format!("{path}.{key}"), value, &found[key]));
            missing.or(surplus).or_else(inside)
        }
        (Json::Array(expected), Json::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.find_map(|(n, (expected, found))| difference(&format!("{path}[{n}]"), expected, found))
        }
        (Json::Number(a), Json::Number(b)) if same(a, b) => None,
        _ => (expected != found).then(|| format!("`{path}` is {found}, expected {expected}")),
    }
}

/// `5` and `5.0` are the same; integers are compared digit by digit.
fn same(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64() && a.as_f64().is_some_and(|value| value.abs() < 9e15)
}

impl Log {
    fn fault(&self, records: &[Record]) -> Option<String> {
        let found = records.iter().any(|record| {
            self.level.as_ref().is_none_or(|level| record.level.as_str().eq_ignore_ascii_case(level))
                && self.message.as_ref().is_none_or(|message| record.message == *message)
                && self.fields.iter().all(|(key, value)| record.fields.iter().any(|(k, v)| k == key && v == value))
        });
        (!found).then(|| {
            let logged: Vec<String> = records.iter().map(|record| format!("{} {:?}", record.level, record.message)).collect();
            format!("no log record is {self:?}; it logged [{}]", logged.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(expected: &str, found: &str) -> Option<String> {
        difference("body", &serde_json::from_str(expected).unwrap(), &serde_json::from_str(found).unwrap())
    }

    #[test]
    fn numbers_are_the_same_in_any_spelling_and_integers_to_the_last_digit() {
        assert_eq!(differ("{\"a\": 5.0, \"b\": [1e2]}", "{\"b\": [100], \"a\": 5}"), None);
        let rounded = differ("[9007199254740993]", "[9007199254740992]");
        assert_eq!(rounded.unwrap(), "`body[0]` is 9007199254740992, expected 9007199254740993");
        assert!(differ("[9007199254740993]", "[9007199254740993.0]").is_some());
    }

    #[test]
    fn the_place_of_a_difference_is_named() {
        assert_eq!(differ("{\"a\": {\"b\": 1}}", "{\"a\": {}}").unwrap(), "`body.a.b` is missing");
        assert_eq!(differ("{}", "{\"c\": 1}").unwrap(), "`body.c` is not expected");
        assert_eq!(differ("{\"a\": \"x\"}", "{\"a\": null}").unwrap(), "`body.a` is null, expected \"x\"");
    }
}
