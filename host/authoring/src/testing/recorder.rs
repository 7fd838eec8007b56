//! A bus that records what is published, and answers as a case says.
//!
//! It has no connection to anything: nothing may leave the machine. `expect` checks what it recorded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::unknown;
use signalbus_core::message::{Message, Publisher, Publishing, PublishingInOrder};
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

    /// Records a message, and returns the answer to it.
    fn record(&self, message: Message) -> Answer {
        let mut recorded = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.push(message);
        match &self.bus {
            Bus::All(answer) => *answer,
            Bus::Each(answers) => answers.get(recorded.len() - 1).copied().unwrap_or(Answer::Sent),
        }
    }
}

impl Answer {
    async fn outcome(self) -> Result<Outcome, Outage> {
        match self {
            Self::Sent => Ok(Outcome::Sent),
            Self::Retry => Ok(Outcome::Retry { reason: "the bus is full".to_owned(), after: AFTER }),
            Self::Reject => Ok(Outcome::Reject { reason: "the bus refuses it".to_owned() }),
            Self::Unavailable => Err(Outage::Unavailable { reason: "the bus is away".to_owned(), after: AFTER }),
            Self::Misconfigured => Err(Outage::Misconfigured { reason: "the bus refuses the login".to_owned() }),
            Self::Silent => std::future::pending().await,
        }
    }
}

impl Publisher for Recorder {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        let answers: Vec<Answer> = messages.into_iter().map(|message| self.record(message)).collect();
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(answers.len());
            for answer in answers {
                outcomes.push(answer.outcome().await?);
            }
            Ok(outcomes)
        })
    }

    fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
        Box::pin(async move {
            let mut receipts = Vec::with_capacity(runs.len());
            for run in runs {
                let mut told: Vec<Result<Outcome, Outage>> = Vec::with_capacity(run.len());
                for message in run {
                    let goes_on = told.last().is_none_or(|outcome| *outcome == Ok(Outcome::Sent));
                    told.push(if goes_on { self.record(message).outcome().await } else { Ok(Outcome::Held) });
                }
                receipts.push(told);
            }
            Ok(receipts)
        })
    }
}
