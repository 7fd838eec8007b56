//! A bus that records what is published, and answers as a case says.
//!
//! It has no connection to anything: nothing may leave the machine. `expect` checks what it recorded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::unknown;
use signalbus_core::message::{Message, Publisher, Publishing};
use signalbus_core::signal::{Outage, Outcome};

/// How the bus answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Json")]
pub(super) enum Bus {
    /// The same for every message.
    All(Answer),
    /// One answer for each message in turn, and `sent` for those after.
    Each(Vec<Answer>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Sent,
    Retry,
    Reject,
    Unavailable,
    Misconfigured,
    /// Never answers.
    Silent,
}

impl Answer {
    const WORDS: [(&str, Self); 6] = [
        ("sent", Self::Sent),
        ("retry", Self::Retry),
        ("reject", Self::Reject),
        ("unavailable", Self::Unavailable),
        ("misconfigured", Self::Misconfigured),
        ("silent", Self::Silent),
    ];

    fn parse(json: &Json) -> Result<Self, String> {
        let word = json.as_str().ok_or_else(|| format!("`bus` is {json}; expected a word or a list of words"))?;
        let known = Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, answer)| *answer);
        known.ok_or_else(|| unknown(word, "`bus` answer", Self::WORDS.iter().map(|(known, _)| *known)))
    }
}

impl TryFrom<Json> for Bus {
    type Error = String;

    fn try_from(json: Json) -> Result<Self, String> {
        match json {
            Json::Array(answers) => answers.iter().map(Answer::parse).collect::<Result<_, _>>().map(Self::Each),
            answer => Answer::parse(&answer).map(Self::All),
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::All(Answer::Sent)
    }
}

pub(super) struct Recorder {
    bus: Bus,
    messages: Mutex<Vec<Message>>,
}

/// The delay that the bus asks for.
const AFTER: Option<Duration> = Some(Duration::from_secs(1));

impl Recorder {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, messages: Mutex::default() }
    }

    pub(super) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answers(&self, before: usize, count: usize) -> Vec<Answer> {
        match &self.bus {
            Bus::All(answer) => vec![*answer; count],
            Bus::Each(answers) => (before..before + count).map(|at| answers.get(at).copied().unwrap_or(Answer::Sent)).collect(),
        }
    }
}

impl Publisher for Recorder {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        let count = messages.len();
        let before = {
            let mut recorded = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            recorded.extend(messages);
            recorded.len() - count
        };
        let answers = self.answers(before, count);
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(count);
            for answer in answers {
                outcomes.push(match answer {
                    Answer::Sent => Outcome::Sent,
                    Answer::Retry => Outcome::Retry { reason: "the bus is full".to_owned(), after: AFTER },
                    Answer::Reject => Outcome::Reject { reason: "the bus refuses it".to_owned() },
                    Answer::Unavailable => {
                        return Err(Outage::Unavailable { reason: "the bus is away".to_owned(), after: AFTER });
                    }
                    Answer::Misconfigured => {
                        return Err(Outage::Misconfigured { reason: "the bus refuses the login".to_owned() });
                    }
                    Answer::Silent => std::future::pending().await,
                });
            }
            Ok(outcomes)
        })
    }
}
