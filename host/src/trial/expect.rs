//! What a case expects, and the first difference from it.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::{Ran, unknown};
use crate::message::Message;
use crate::plugin::Record;
use crate::signal::{Outage, Outcome};

/// What a case expects; what it does not name may be as it will.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
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

/// How a call may fail; by whatever it does.
const FAILURES: [&str; 6] = ["trap", "deadline", "memory", "exit", "other", ANY];
const ANY: &str = "any";

fn read_failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(kind) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if FAILURES.contains(&kind.as_str()) {
        return Ok(Some(kind));
    }
    Err(D::Error::custom(format!("`failure`: {}", unknown(&kind, "kind of failure", FAILURES.into_iter()))))
}

#[derive(Clone, Debug)]
enum Outcomes {
    /// The same for every row.
    All(Answer),
    Each(Vec<Answer>),
}

impl Outcomes {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let outcome = |json: &Json| Answer::parse(json, "outcome", &OUTCOMES);
        let of_row = |(n, json): (usize, &Json)| outcome(json).map_err(|fault| format!("`outcomes`, row {}: {fault}", n + 1));
        let read = match Json::deserialize(deserializer)? {
            Json::Null => return Ok(None),
            Json::Array(rows) => rows.iter().enumerate().map(of_row).collect::<Result<_, _>>().map(Self::Each),
            all => outcome(&all).map(Self::All).map_err(|fault| format!("`outcomes`: {fault}")),
        };
        read.map(Some).map_err(D::Error::custom)
    }
}

/// `"sent"`, or `{"retry": "part of the reason", "after_ms": 1500}`.
#[derive(Clone, Debug)]
struct Answer {
    kind: &'static str,
    reason: Option<String>,
    /// `null`: no time is named.
    after_ms: Option<Option<u64>>,
}

/// An answer's name, and what may be said with it.
struct Word(&'static str, With);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum With {
    Nothing,
    Reason,
    ReasonAndTime,
}

const OUTCOMES: [Word; 5] = [
    Word("sent", With::Nothing),
    Word("skip", With::Nothing),
    Word("retry", With::ReasonAndTime),
    Word("reject", With::Reason),
    Word("held", With::Nothing),
];
const OUTAGES: [Word; 2] = [Word("unavailable", With::ReasonAndTime), Word("misconfigured", With::Reason)];

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
            (None, Some(Outcomes::All(expected)), Ok(outcomes)) => {
                outcomes.iter().enumerate().find_map(|(n, outcome)| of_row(n, expected, outcome))
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
    fn read_outage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let Some(json) = Option::<Json>::deserialize(deserializer)? else { return Ok(None) };
        let read = Self::parse(&json, "outage", &OUTAGES).map_err(|fault| format!("`outage`: {fault}"));
        read.map(Some).map_err(D::Error::custom)
    }

    /// `what`: an outcome or an outage, each of which has its words.
    fn parse(json: &Json, what: &str, words: &[Word]) -> Result<Self, String> {
        let of = |word: &str| {
            let known = words.iter().find(|Word(known, _)| *known == word);
            known.ok_or_else(|| unknown(word, what, words.iter().map(|Word(known, _)| *known)))
        };
        let parts = match json {
            Json::String(word) => return of(word).map(|Word(kind, _)| Self { kind, reason: None, after_ms: None }),
            Json::Object(parts) => parts,
            _ => return Err(format!("{json} is no {what}; write \"{}\"", words[0].0)),
        };
        const AFTER: &str = "after_ms";
        let mut named = parts.iter().filter(|(key, _)| *key != AFTER);
        // The known one first, so that what is beside it is what is told of.
        let (key, reason) = named.clone().find(|(key, _)| of(key).is_ok()).or_else(|| named.next()).ok_or_else(|| {
            format!(
                "{json} names no {what}, which are {}",
                words.iter().map(|Word(known, _)| *known).collect::<Vec<_>>().join(", ")
            )
        })?;
        let Word(kind, with) = of(key)?;
        if let Some((other, _)) = parts.iter().find(|(other, _)| *other != key && *other != AFTER) {
            return Err(format!("unknown key \"{other}\" beside \"{kind}\", where only \"{AFTER}\" may be"));
        }
        if *with == With::Nothing {
            return Err(format!("\"{kind}\" has no reason and no time: write it without braces"));
        }
        let reason = reason.as_str().ok_or_else(|| format!("the reason of \"{kind}\" is {reason}: write a part of its text"))?;
        let after_ms = parts.get(AFTER).map(|after| match after {
            Json::Null => Ok(None),
            _ if *with < With::ReasonAndTime => Err(format!("\"{kind}\" has no \"{AFTER}\"")),
            after => {
                after.as_u64().map(Some).ok_or_else(|| format!("\"{AFTER}\" is {after}: write a number of milliseconds, or null"))
            }
        });
        Ok(Self { kind, reason: Some(reason.to_owned()), after_ms: after_ms.transpose()? })
    }

    fn fault(&self, found: &Found<'_>) -> Option<String> {
        let fits = found.kind == self.kind
            && self.reason.as_ref().is_none_or(|reason| found.reason.contains(reason))
            && self.after_ms.is_none_or(|after_ms| found.after_ms == after_ms);
        (!fits).then(|| format!("is {}, expected {}", found.shown(), self.shown()))
    }

    fn shown(&self) -> String {
        let Some(reason) = &self.reason else { return Json::from(self.kind).to_string() };
        let mut json = serde_json::json!({ self.kind: reason });
        if let Some(after_ms) = self.after_ms {
            json["after_ms"] = after_ms.into();
        }
        json.to_string()
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
    fn words_that_nothing_answers_are_refused() {
        for (json, words) in [
            (
                r#"{"outcomes": ["sent", "snet"]}"#,
                "`outcomes`, row 2: \"snet\" is no outcome, which are sent, skip, retry, reject, held; did you mean \"sent\"?",
            ),
            (r#"{"outcomes": "gone"}"#, "`outcomes`: \"gone\" is no outcome, which are sent"),
            (r#"{"outcomes": [{"retry": 5}]}"#, "`outcomes`, row 1: the reason of \"retry\" is 5: write a part of its text"),
            (
                r#"{"outcomes": [{"retry": "x", "after": 5}]}"#,
                "unknown key \"after\" beside \"retry\", where only \"after_ms\" may be",
            ),
            (r#"{"outcomes": [{"retry": "x", "after_ms": "5"}]}"#, "\"after_ms\" is \"5\": write a number"),
            (r#"{"outcomes": [{"reject": "x", "after_ms": 5}]}"#, "\"reject\" has no \"after_ms\""),
            (r#"{"outcomes": [{"after_ms": 5}]}"#, "names no outcome, which are sent"),
            (r#"{"outcomes": [{"sent": ""}]}"#, "\"sent\" has no reason and no time"),
            (r#"{"outcomes": [5]}"#, "5 is no outcome; write \"sent\""),
            (r#"{"outage": "unavailble"}"#, "`outage`: \"unavailble\" is no outage, which are unavailable, misconfigured; did"),
            (r#"{"outage": {"retry": "x"}}"#, "\"retry\" is no outage"),
            (
                r#"{"failure": "panic"}"#,
                "`failure`: \"panic\" is no kind of failure, which are trap, deadline, memory, exit, other, any",
            ),
        ] {
            let error = serde_json::from_str::<Expect>(json).unwrap_err().to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
        let read = serde_json::from_str::<Expect>(
            r#"{"outcomes": ["held", {"retry": "x", "after_ms": null}, {"reject": "y"}], "outage": null, "failure": "any"}"#,
        );
        assert!(matches!(read.unwrap().outcomes, Some(Outcomes::Each(answers)) if answers.len() == 3));
    }

    #[test]
    fn the_place_of_a_difference_is_named() {
        assert_eq!(differ("{\"a\": {\"b\": 1}}", "{\"a\": {}}").unwrap(), "`body.a.b` is missing");
        assert_eq!(differ("{}", "{\"c\": 1}").unwrap(), "`body.c` is not expected");
        assert_eq!(differ("{\"a\": \"x\"}", "{\"a\": null}").unwrap(), "`body.a` is null, expected \"x\"");
    }
}
