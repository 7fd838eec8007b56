//! What all buses have in common: measures, secrets kept out of words, and no second sending of what
//! the bus has confirmed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Bus, ConnectionConfig, Receipt, unavailable};
use crate::message::{Message, Publisher, Publishing};
use crate::signal::{Outage, Outcome, Verdict};
use crate::telemetry;

/// A bus, and what is watched of it.
pub(super) struct Watched {
    name: String,
    secrets: Vec<String>,
    bus: Box<dyn Bus>,
    confirmed: Mutex<Confirmed>,
}

/// Messages that the bus has confirmed in calls that ended in an outage: these calls are made again,
/// and what the bus has need not go there twice. Each is kept until then, though not for ever:
/// another relay may send it, and its identity be used anew.
#[derive(Default)]
struct Confirmed {
    hasher: RandomState,
    /// By the message's id: what it looked like, and when it was confirmed.
    prints: HashMap<String, (u64, Instant)>,
}

impl Watched {
    pub(super) fn new(config: &ConnectionConfig, bus: Box<dyn Bus>) -> Self {
        let secrets = config.secrets().into_iter().filter(|secret| secret.len() >= 4).collect();
        Self { name: config.name.clone(), secrets, bus, confirmed: Mutex::default() }
    }

    async fn take(&self, messages: Vec<Message>) -> Verdict {
        let begun = Instant::now();
        let arrived: Vec<bool> = {
            let mut confirmed = self.confirmed();
            messages.iter().map(|message| confirmed.take(message)).collect()
        };
        let verdict = if arrived.contains(&true) {
            let (known, fresh): (Vec<_>, Vec<_>) = messages.into_iter().zip(&arrived).partition(|(_, arrived)| **arrived);
            let fresh: Vec<Message> = fresh.into_iter().map(|(message, _)| message).collect();
            let verdict = self.send(&fresh).await;
            if verdict.is_err() {
                known.iter().for_each(|(message, _)| self.confirmed().put(message));
            }
            verdict.map(|outcomes| {
                let mut outcomes = outcomes.into_iter();
                arrived.iter().map_while(|arrived| if *arrived { Some(Outcome::Sent) } else { outcomes.next() }).collect()
            })
        } else {
            self.send(&messages).await
        };
        telemetry::published(&self.name, &verdict, begun.elapsed());
        verdict
    }

    async fn send(&self, messages: &[Message]) -> Verdict {
        let receipts = match self.bus.publish(messages).await {
            Ok(receipts) => receipts,
            Err(outage) => return Err(self.told(outage)),
        };
        let lost = receipts.iter().find_map(|receipt| receipt.as_ref().err());
        if let Some(reason) = lost {
            let sent = |(message, receipt): (&Message, &Receipt)| matches!(receipt, Ok(Outcome::Sent)).then(|| message.clone());
            let sent = messages.iter().zip(&receipts).filter_map(sent);
            sent.for_each(|message| self.confirmed().put(&message));
            return Err(self.told(unavailable(reason.as_str())));
        }
        Ok(receipts.into_iter().flatten().map(|outcome| self.worded(outcome)).collect())
    }

    /// An outage, with the connection's name and without its secrets.
    fn told(&self, outage: Outage) -> Outage {
        let words = |reason: &str| format!("connection \"{}\": {}", self.name, self.redact(reason));
        match outage {
            Outage::Unavailable { reason, after } => Outage::Unavailable { reason: words(&reason), after },
            Outage::Misconfigured { reason } => Outage::Misconfigured { reason: words(&reason) },
        }
    }

    fn worded(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Retry { reason, after } => Outcome::Retry { reason: self.redact(&reason), after },
            Outcome::Reject { reason } => Outcome::Reject { reason: self.redact(&reason) },
            other => other,
        }
    }

    fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
    }

    fn confirmed(&self) -> MutexGuard<'_, Confirmed> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher for Watched {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        Box::pin(self.take(messages))
    }
}

impl Confirmed {
    /// More than an outage leaves behind; beyond it, a message may be sent twice.
    const MOST: usize = 100_000;
    const KEPT: Duration = Duration::from_secs(600);

    fn put(&mut self, message: &Message) {
        // What has no identity may be meant twice.
        let Some(id) = &message.id else { return };
        if self.prints.len() >= Self::MOST {
            self.prints.clear();
        }
        self.prints.insert(id.clone(), (self.hasher.hash_one(message), Instant::now()));
    }

    fn take(&mut self, message: &Message) -> bool {
        if self.prints.is_empty() {
            return false;
        }
        let id = message.id.as_deref().unwrap_or_default();
        let print = self.prints.remove(id);
        print.is_some_and(|(print, at)| print == self.hasher.hash_one(message) && at.elapsed() < Self::KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Receiving, reject};
    use super::*;

    /// Answers with what was prepared, and remembers what it was handed.
    #[derive(Default)]
    struct Prepared {
        answers: Mutex<Vec<Answer>>,
        handed: Mutex<Vec<Vec<String>>>,
    }

    type Answer = Result<Vec<Receipt>, Outage>;

    impl Bus for std::sync::Arc<Prepared> {
        fn publish<'a>(&'a self, messages: &'a [Message]) -> Receiving<'a> {
            self.handed.lock().unwrap().push(messages.iter().filter_map(|message| message.id.clone()).collect());
            Box::pin(std::future::ready(self.answers.lock().unwrap().remove(0)))
        }
    }

    fn message(id: &str) -> Message {
        Message { id: Some(id.into()), ..Message::default() }
    }

    fn watched(answers: Vec<Answer>) -> (std::sync::Arc<Prepared>, Watched) {
        let config = ConnectionConfig::new("b", "amqp://u:pa%20ss@h", None, Duration::from_secs(1), vec![]).unwrap();
        let prepared = std::sync::Arc::new(Prepared { answers: Mutex::new(answers), ..Prepared::default() });
        (prepared.clone(), Watched::new(&config, Box::new(prepared)))
    }

    #[tokio::test]
    async fn what_arrived_before_the_loss_is_not_sent_again() {
        let lost = || Err("reset".to_owned());
        let answers = vec![
            Ok(vec![Ok(Outcome::Sent), lost(), lost()]),
            Err(unavailable("refused")),
            Ok(vec![Ok(Outcome::Sent), Ok(reject("no route"))]),
            Ok(vec![Ok(Outcome::Sent)]),
        ];
        let (prepared, watched) = watched(answers);
        let call = || watched.take(vec![message("1"), message("2"), message("3")]);
        let outage = |reason: &str| Err(unavailable(format!("connection \"b\": {reason}")));
        assert_eq!(call().await, outage("reset"));
        assert_eq!(call().await, outage("refused"));
        assert_eq!(call().await, Ok(vec![Outcome::Sent, Outcome::Sent, reject("no route")]));
        // Only once: the same signal may be sent anew.
        assert_eq!(watched.take(vec![message("1")]).await, Ok(vec![Outcome::Sent]));
        let handed = prepared.handed.lock().unwrap().clone();
        assert_eq!(handed, [vec!["1", "2", "3"], vec!["2", "3"], vec!["2", "3"], vec!["1"]]);
    }

    #[tokio::test]
    async fn a_message_that_changed_is_another() {
        let (prepared, watched) = watched(vec![Ok(vec![Ok(Outcome::Sent), Err("reset".into())]), Ok(vec![Ok(Outcome::Sent)])]);
        assert!(watched.take(vec![message("1"), message("2")]).await.is_err());
        let changed = Message { body: b"x".to_vec(), ..message("1") };
        assert_eq!(watched.take(vec![changed]).await, Ok(vec![Outcome::Sent]));
        assert_eq!(prepared.handed.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn passwords_are_struck_from_reasons() {
        let (_, watched) = watched(vec![Err(unavailable("amqp://u:pa%20ss@h, pa ss"))]);
        let Err(Outage::Unavailable { reason, .. }) = watched.take(vec![message("1")]).await else { panic!() };
        assert_eq!(reason, "connection \"b\": amqp://u:[secret]@h, [secret]");
    }
}
