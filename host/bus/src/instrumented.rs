//! Wraps every bus with metrics, and redacts secrets in its messages.
//!
//! No outcome or outage may leave the crate without passing through here. Each bus implements
//! `Bus` in a module of its own.

use tokio::time::Instant;

use super::pace::{Call, Pace};
use super::privileges::Kind;
use super::{Bus, ConnectionConfig, Failure, Receipt, apart, outage, unavailable};
use signalbus_core::message::{Effect, Message, Publisher, Publishing};
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_telemetry as telemetry;

/// A bus with metrics and redaction.
pub(super) struct InstrumentedBus {
    config: ConnectionConfig,
    kind: Kind,
    secrets: Vec<String>,
    bus: Box<dyn Bus>,
    pace: Pace,
    /// Creates a further connection of the same kind.
    open: Opener,
}

type Opener = Box<dyn Fn() -> Result<Box<dyn Bus>, String> + Send + Sync>;

impl InstrumentedBus {
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        let again = config.clone();
        Self::with(config, Box::new(move || again.bus()))
    }

    fn with(config: &ConnectionConfig, open: Opener) -> Result<Self, String> {
        let secrets = config.secrets().into_iter().filter(|secret| secret.len() >= 4).collect();
        let kind = Kind::of_scheme(config.url.scheme());
        Ok(Self { config: config.clone(), kind, secrets, bus: open()?, pace: Pace::new(config.timeout), open })
    }

    async fn publish_measured(&self, messages: Vec<Message>) -> Verdict {
        let begun = Instant::now();
        let mut verdict = self.send(&messages).await;
        if let Err(Outage::Unavailable { reason, .. }) = &mut verdict
            && let Some(cause) = self.config.explain().await
        {
            reason.push_str("; ");
            reason.push_str(&cause);
        }
        telemetry::published(&self.config.name, &verdict, begun.elapsed());
        verdict
    }

    async fn send(&self, messages: &[Message]) -> Verdict {
        let receipts = self.receipts(messages).await.map_err(|outage| self.describe(outage))?;
        // Unless the bus has decided on anything, it has an outage.
        if !receipts.iter().any(Result::is_ok)
            && let Some(Err(failure)) = receipts.first()
        {
            return Err(self.describe(unavailable(failure.reason())));
        }
        Ok(receipts.into_iter().map(|receipt| receipt.map_or(Outcome::Held, |outcome| self.redact_outcome(outcome))).collect())
    }

    /// Publishes the messages in parts, each as large as the bus can confirm in time. What there is no time for, and what
    /// follows a part that was not confirmed, goes into another call.
    async fn receipts(&self, messages: &[Message]) -> Result<Vec<Receipt>, Outage> {
        let begun = Instant::now();
        let (half, deadline) = (begun + self.config.timeout / 2, begun + self.config.timeout);
        let call = self.pace.call();
        let mut receipts = Vec::with_capacity(messages.len());
        while receipts.len() < messages.len() {
            let left = &messages[receipts.len()..];
            match self.publish_part(&call, &left[..call.part(left)], deadline).await {
                Ok(part) => receipts.extend(part),
                Err(outage) if receipts.is_empty() => return Err(outage),
                Err(_) => break,
            }
            if Instant::now() >= half || receipts.iter().any(Result::is_err) {
                break;
            }
        }
        receipts.resize(messages.len(), Err(outage("not tried")));
        Ok(receipts)
    }

    /// Publishes messages together; those that a broken connection left unconfirmed, on connections of their own.
    async fn publish_part(&self, call: &Call<'_>, messages: &[Message], deadline: Instant) -> Result<Vec<Receipt>, Outage> {
        let begun = Instant::now();
        let mut receipts = self.bus.publish(messages, deadline).await?;
        call.learn(messages, &receipts, begun.elapsed());
        let failures = || receipts.iter().filter_map(|receipt| receipt.as_ref().err());
        let is_broken = failures().next().is_some() && failures().all(|failure| matches!(failure, Failure::Broken(_)));
        if is_broken && Instant::now() < deadline {
            apart::publish(&self.open, messages, &mut receipts, deadline).await;
        }
        if let Some(failure) = receipts.iter().find_map(|receipt| receipt.as_ref().err()) {
            let unconfirmed = receipts.iter().filter(|receipt| receipt.is_err()).count();
            let others = unconfirmed < receipts.len();
            telemetry::unconfirmed(&self.config.name, unconfirmed, others, &self.redact(failure.reason()));
        }
        Ok(receipts)
    }

    /// Adds the connection's name to an outage, and redacts secrets.
    fn describe(&self, outage: Outage) -> Outage {
        let words = |reason: &str| format!("connection \"{}\": {}", self.config.name, self.redact(reason));
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

    fn administers(&self, destination: &str) -> bool {
        self.kind.administers(destination)
    }

    fn effect_of_header(&self, name: &str) -> Effect {
        self.kind.effect_of_header(name)
    }

    fn effect_of_option(&self, name: &str, value: &str) -> Effect {
        self.kind.effect_of_option(name, value)
    }
}

#[cfg(test)]
#[cfg(feature = "amqp")]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::super::{Receiving, broken, outage, reject};
    use super::*;

    /// Returns prepared answers, and records the messages that it receives.
    #[derive(Default)]
    struct Prepared {
        answers: Mutex<Vec<Answer>>,
        received: Mutex<Vec<Vec<String>>>,
    }

    type Answer = Result<Vec<Receipt>, Outage>;

    impl Bus for std::sync::Arc<Prepared> {
        fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
            self.received.lock().unwrap().push(messages.iter().filter_map(|message| message.id.clone()).collect());
            Box::pin(std::future::ready(self.answers.lock().unwrap().remove(0)))
        }
    }

    fn message(id: &str) -> Message {
        Message { id: Some(id.into()), ..Message::default() }
    }

    fn instrumented(answers: Vec<Answer>) -> (std::sync::Arc<Prepared>, InstrumentedBus) {
        let config =
            ConnectionConfig::new("b", "amqp://u:pa%20ss@h", None, Duration::from_secs(1), vec![], std::path::Path::new(""))
                .unwrap();
        let prepared = std::sync::Arc::new(Prepared { answers: Mutex::new(answers), ..Prepared::default() });
        let again = prepared.clone();
        (prepared, InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(again.clone())))).unwrap())
    }

    #[tokio::test]
    async fn what_is_confirmed_stands() {
        let told = |reason: &str| Err(unavailable(format!("connection \"b\": {reason}")));
        let part = Ok(vec![Ok(Outcome::Sent), Err(outage("full")), Ok(Outcome::Sent)]);
        let nothing = Ok(vec![Err(outage("full")); 3]);
        let whole = Ok(vec![Ok(Outcome::Sent), Ok(reject("no route")), Ok(Outcome::Sent)]);
        let (prepared, instrumented) = instrumented(vec![part, nothing, Err(unavailable("refused")), whole]);
        let call = || instrumented.publish_measured(vec![message("1"), message("2"), message("3")]);
        assert_eq!(call().await, Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Sent]));
        assert_eq!(call().await, told("full"));
        assert_eq!(call().await, told("refused"));
        assert_eq!(call().await, Ok(vec![Outcome::Sent, reject("no route"), Outcome::Sent]));
        let received = prepared.received.lock().unwrap().clone();
        assert_eq!(received, vec![vec!["1", "2", "3"]; 4]);
    }

    /// A bus that breaks on some messages.
    struct Fragile(std::sync::Arc<Mutex<Vec<usize>>>, fn(&str) -> bool);

    impl Bus for Fragile {
        fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
            self.0.lock().unwrap().push(messages.len());
            let breaks = messages.iter().any(|message| message.id.as_deref().is_some_and(self.1));
            let receipt = if breaks { Err(broken("reset")) } else { Ok(Outcome::Sent) };
            Box::pin(std::future::ready(Ok(vec![receipt; messages.len()])))
        }
    }

    async fn fragile(count: usize, breaks: fn(&str) -> bool) -> (Verdict, Vec<usize>) {
        let config =
            ConnectionConfig::new("b", "amqp://u:p@h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
        let calls = std::sync::Arc::<Mutex<Vec<usize>>>::default();
        let again = calls.clone();
        let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Fragile(again.clone(), breaks))))).unwrap();
        let verdict = bus.publish_measured((1..=count).map(|id| message(&id.to_string())).collect()).await;
        let calls = calls.lock().unwrap().clone();
        (verdict, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_break_connections_are_found_by_halves() {
        let (verdict, calls) = fragile(500, |id| ["77", "400"].contains(&id)).await;
        let outcomes = verdict.unwrap();
        for (position, outcome) in outcomes.iter().enumerate() {
            let is_guilty = [76, 399].contains(&position);
            assert_eq!(*outcome == Outcome::Sent, !is_guilty, "{position}: {outcome:?}");
            assert_eq!(matches!(outcome, Outcome::Reject { .. }), is_guilty, "{position}: {outcome:?}");
        }
        assert!(calls.len() < 60, "{calls:?}");
    }

    /// Then the bus may be at fault.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_rejected_if_nothing_else_was_confirmed() {
        let (verdict, calls) = fragile(1, |_| true).await;
        assert!(matches!(verdict.unwrap()[..], [Outcome::Retry { .. }]));
        assert_eq!(calls.len(), 4);
        let (verdict, calls) = fragile(500, |_| true).await;
        assert!(verdict.is_err() && calls.len() < 40, "{verdict:?}: {calls:?}");
        // If there are more than there is time for, what was sent counts, and the others are not charged.
        let (verdict, calls) = fragile(500, |id| id.ends_with('7')).await;
        let outcomes = verdict.unwrap();
        let sent = outcomes.iter().filter(|outcome| **outcome == Outcome::Sent).count();
        let charged = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Retry { .. })).count();
        assert!(sent > 40 && charged == 0 && calls.len() < 200, "{sent}, {charged}: {calls:?}");
    }

    /// A bus that takes a millisecond for each byte of a message's body.
    struct Slow(std::sync::Arc<Mutex<Vec<usize>>>);

    impl Bus for Slow {
        fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
            self.0.lock().unwrap().push(messages.len());
            Box::pin(async move {
                let mut receipts = Vec::new();
                for message in messages {
                    let time = Duration::from_millis(u64::try_from(message.body.len()).unwrap());
                    let confirmed = tokio::time::timeout_at(deadline, tokio::time::sleep(time)).await;
                    receipts.push(confirmed.map(|()| Outcome::Sent).map_err(|_| outage("no confirmation in time")));
                }
                Ok(receipts)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_begins_nothing_that_may_not_end_in_time() {
        let config =
            ConnectionConfig::new("b", "amqp://h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
        let calls = std::sync::Arc::<Mutex<Vec<usize>>>::default();
        let again = calls.clone();
        let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Slow(again.clone()))))).unwrap();
        // Each takes 228 bytes on its way, and a tenth of a second.
        let messages = vec![Message { body: vec![0; 100], ..Message::default() }; 1000];
        let call = async || bus.publish_measured(messages.clone()).await.unwrap();
        let sent = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| **outcome == Outcome::Sent).count();
        let (first, begun) = (call().await, Instant::now());
        assert_eq!((sent(&first), &first[99..101]), (100, &[Outcome::Sent, Outcome::Held][..]));
        for _ in 0..5 {
            let outcomes = call().await;
            assert!((50..=100).contains(&sent(&outcomes)), "{}", sent(&outcomes));
        }
        assert!(begun.elapsed() <= Duration::from_secs(50), "{:?}", begun.elapsed());
        // What was published twice is a part of the first call.
        assert!(calls.lock().unwrap()[1..].iter().all(|part| *part < 100), "{:?}", calls.lock().unwrap());
    }

    #[tokio::test]
    async fn passwords_are_redacted_in_reasons() {
        let (_, instrumented) = instrumented(vec![Err(unavailable("amqp://u:pa%20ss@h, pa ss"))]);
        let Err(Outage::Unavailable { reason, .. }) = instrumented.publish_measured(vec![message("1")]).await else { panic!() };
        assert_eq!(reason, "connection \"b\": amqp://u:[secret]@h, [secret]");
    }
}
