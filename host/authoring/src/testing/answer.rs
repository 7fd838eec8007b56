//! Outcomes and outages as a file of rows writes them: expected ones ([`Answer`]) and actual ones
//! ([`Found`]).
//!
//! A difference must never quote a secret. `expect` compares them.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::redactor::Redactor;
use super::unknown;
use signalbus_core::signal::{Outage, Outcome};

#[derive(Clone, Debug)]
pub(super) enum Outcomes {
    /// The same for every row.
    All(Answer),
    Each(Vec<Answer>),
}

impl Outcomes {
    pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
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
pub(super) struct Answer {
    kind: &'static str,
    reason: Option<String>,
    /// `Some(None)`, written `null`: expects that no time is given.
    after_ms: Option<Option<u64>>,
}

/// The name of an answer, and what may be written with it.
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

/// The parts of an actual outcome or outage.
pub(super) struct Found<'a> {
    kind: &'static str,
    reason: &'a str,
    after_ms: Option<u64>,
}

impl<'a> Found<'a> {
    pub(super) fn from_outcome(outcome: &'a Outcome) -> Self {
        let (kind, reason, after) = match outcome {
            Outcome::Sent => ("sent", "", None),
            Outcome::Skip => ("skip", "", None),
            Outcome::Retry { reason, after } => ("retry", reason.as_str(), *after),
            Outcome::Reject { reason } => ("reject", reason.as_str(), None),
            Outcome::Held => ("held", "", None),
        };
        Self { kind, reason, after_ms: after.map(millis) }
    }

    pub(super) fn from_outage(outage: &'a Outage) -> Self {
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
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Answer {
    pub(super) fn read_outage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let Some(json) = Option::<Json>::deserialize(deserializer)? else { return Ok(None) };
        let read = Self::parse(&json, "outage", &OUTAGES).map_err(|fault| format!("`outage`: {fault}"));
        read.map(Some).map_err(D::Error::custom)
    }

    /// Parses an answer; `what` is "outcome" or "outage", and `words` are its names.
    fn parse(json: &Json, what: &str, words: &[Word]) -> Result<Self, String> {
        let of = |word: &str| {
            let known = words.iter().find(|Word(known, _)| *known == word);
            known.ok_or_else(|| unknown(word, what, words.iter().map(|Word(known, _)| *known)))
        };
        let parts = match json {
            Json::String(word) => return of(word).map(|Word(kind, _)| Self { kind, reason: None, after_ms: None }),
            Json::Object(parts) => parts,
            _ => return Err(format!("invalid {what} {json}; expected e.g. \"{}\"", words[0].0)),
        };
        const AFTER: &str = "after_ms";
        let mut named = parts.iter().filter(|(key, _)| *key != AFTER);
        // Prefer the known key, so that the error is about the unknown one beside it.
        let (key, reason) = named.clone().find(|(key, _)| of(key).is_ok()).or_else(|| named.next()).ok_or_else(|| {
            format!(
                "no {what} in {json}; expected one of {}",
                words.iter().map(|Word(known, _)| *known).collect::<Vec<_>>().join(", ")
            )
        })?;
        let Word(kind, with) = of(key)?;
        if let Some((other, _)) = parts.iter().find(|(other, _)| *other != key && *other != AFTER) {
            return Err(format!("unknown key \"{other}\" beside \"{kind}\"; only \"{AFTER}\" is allowed"));
        }
        if *with == With::Nothing {
            return Err(format!("\"{kind}\" takes no reason and no time; write it without braces"));
        }
        let reason = reason
            .as_str()
            .ok_or_else(|| format!("the reason of \"{kind}\" is {reason}; expected a string, part of the actual reason"))?;
        let after_ms = parts.get(AFTER).map(|after| match after {
            Json::Null => Ok(None),
            _ if *with < With::ReasonAndTime => Err(format!("\"{kind}\" takes no \"{AFTER}\"")),
            after => after
                .as_u64()
                .map(Some)
                .ok_or_else(|| format!("\"{AFTER}\" is {after}; expected a number of milliseconds, or null")),
        });
        Ok(Self { kind, reason: Some(reason.to_owned()), after_ms: after_ms.transpose()? })
    }

    pub(super) fn fault(&self, found: &Found<'_>, redactor: &Redactor) -> Option<String> {
        let fits = found.kind == self.kind
            && self.reason.as_ref().is_none_or(|reason| found.reason.contains(reason))
            && self.after_ms.is_none_or(|after_ms| found.after_ms == after_ms);
        (!fits).then(|| format!("is {}, expected {}", redactor.json(found.json()), redactor.json(self.json())))
    }

    pub(super) fn json(&self) -> Json {
        let Some(reason) = &self.reason else { return self.kind.into() };
        let mut json = serde_json::json!({ self.kind: reason });
        if let Some(after_ms) = self.after_ms {
            json["after_ms"] = after_ms.into();
        }
        json
    }
}
