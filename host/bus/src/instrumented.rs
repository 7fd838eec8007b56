//! Wraps every bus with metrics, and redacts secrets in its messages.
//!
//! No outcome or outage may leave the crate without passing through here. Each bus implements
//! `Bus` in a module of its own.

use std::time::Instant;

use super::{Bus, ConnectionConfig, unavailable};
use signalbus_core::message::{Message, Publisher, Publishing};
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_telemetry as telemetry;

/// A bus with metrics and redaction.
pub(super) struct InstrumentedBus {
    name: String,
    secrets: Vec<String>,
    bus: Box<dyn Bus>,
}

impl InstrumentedBus {
    pub(super) fn new(config: &ConnectionConfig, bus: Box<dyn Bus>) -> Self {
        let secrets = config.secrets().into_iter().filter(|secret| secret.len() >= 4).collect();
        Self { name: config.name.clone(), secrets, bus }
    }

    async fn publish_measured(&self, messages: Vec<Message>) -> Verdict {
        let begun = Instant::now();
        let verdict = self.send(&messages).await;
        telemetry::published(&self.name, &verdict, begun.elapsed());
        verdict
    }

    async fn send(&self, messages: &[Message]) -> Verdict {
        let receipts = match self.bus.publish(messages).await {
            Ok(receipts) => receipts,
            Err(outage) => return Err(self.describe(outage)),
        };
        // Confirmed messages of the same call are sent again as well. Remembering their ids would not
        // help: by then, an id may stand for another row.
        if let Some(reason) = receipts.iter().find_map(|receipt| receipt.as_ref().err()) {
            return Err(self.describe(unavailable(reason.as_str())));
        }
        Ok(receipts.into_iter().flatten().map(|outcome| self.redact_outcome(outcome)).collect())
    }

    /// Adds the connection's name to an outage, and redacts secrets.
    fn describe(&self, outage: Outage) -> Outage {
        let words = |reason: &str| format!("connection \"{}\": {}", self.name, self.redact(reason));
        match outage {
            Outage::Unavailable { reason, after } => Outage::Unavailable { reason: words(&reason), after },
            Outage::Misconfigured { reason } => Outage::Misconfigured { reason: words(&reason) },
        }
    }

    fn redact_outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Retry { reason, after } => Outcome::Retry { reason: self.redact(&reason), after },
            Outcome::Reject { reason } => Outcome::Reject { reason: self.redact(&reason) },
            other => other,
        }
    }

    fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
    }
}

impl Publisher for InstrumentedBus {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        Box::pin(self.publish_measured(messages))
    }
}

#[cfg(test)]
#[cfg(feature = "amqp")]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::super::{Receipt, Receiving, reject};
    use super::*;

    /// Returns prepared answers, and records the messages that it receives.
    #[derive(Default)]
    struct Prepared {
        answers: Mutex<Vec<Answer>>,
        received: Mutex<Vec<Vec<String>>>,
    }

    type Answer = Result<Vec<Receipt>, Outage>;

    impl Bus for std::sync::Arc<Prepared> {
        fn publish<'a>(&'a self, messages: &'a [Message]) -> Receiving<'a> {
            self.received.lock().unwrap().push(messages.iter().filter_map(|message| message.id.clone()).collect());
            Box::pin(std::future::ready(self.answers.lock().unwrap().remove(0)))
        }
    }

    fn message(id: &str) -> Message {
        Message { id: Some(id.into()), ..Message::default() }
    }

    fn instrumented(answers: Vec<Answer>) -> (std::sync::Arc<Prepared>, InstrumentedBus) {
        let config = ConnectionConfig::new("b", "amqp://u:pa%20ss@h", None, Duration::from_secs(1), vec![]).unwrap();
        let prepared = std::sync::Arc::new(Prepared { answers: Mutex::new(answers), ..Prepared::default() });
        (prepared.clone(), InstrumentedBus::new(&config, Box::new(prepared)))
    }

    #[tokio::test]
    async fn a_partly_lost_batch_is_an_outage() {
        let outage = |reason: &str| Err(unavailable(format!("connection \"b\": {reason}")));
        let part = Ok(vec![Ok(Outcome::Sent), Err("reset".to_owned()), Ok(Outcome::Sent)]);
        let whole = Ok(vec![Ok(Outcome::Sent), Ok(reject("no route")), Ok(Outcome::Sent)]);
        let (prepared, instrumented) = instrumented(vec![part, Err(unavailable("refused")), whole]);
        let call = || instrumented.publish_measured(vec![message("1"), message("2"), message("3")]);
        assert_eq!(call().await, outage("reset"));
        assert_eq!(call().await, outage("refused"));
        assert_eq!(call().await, Ok(vec![Outcome::Sent, reject("no route"), Outcome::Sent]));
        let received = prepared.received.lock().unwrap().clone();
        assert_eq!(received, vec![vec!["1", "2", "3"]; 3]);
    }

    #[tokio::test]
    async fn passwords_are_redacted_in_reasons() {
        let (_, instrumented) = instrumented(vec![Err(unavailable("amqp://u:pa%20ss@h, pa ss"))]);
        let Err(Outage::Unavailable { reason, .. }) = instrumented.publish_measured(vec![message("1")]).await else { panic!() };
        assert_eq!(reason, "connection \"b\": amqp://u:[secret]@h, [secret]");
    }
}
