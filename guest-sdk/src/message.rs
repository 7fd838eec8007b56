//! Messages, and publishing them on the relay's connections.
//!
//! A message without an outcome must never count as sent. `bulk` and `outcome` define the results.

use crate::bindings::types::RunOutcome;
use crate::bulk::decided;
use crate::{BulkResult, Error, Message, Outcome, Result, Signal, host, runs};
use serde::ser::Serialize;

/// Publishes one message per signal, made by `message`: the usual way to write a bulk plugin.
///
/// All messages are published together, which costs about one round trip. If `message` fails for a
/// signal, the error decides its outcome, and its neighbours are still published; in an ordered signal type,
/// those with other order keys. The bus keeps the order.
///
/// ```
/// use signalbus_guest::{BulkResult, Message, Signal, Verdict, plugin, publish_each};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     publish_each(signals, |signal| {
///         let key: String = signal.get("customer").or_reject()?;
///         Ok(Message::new("bus", "orders").id(signal.id()).key(key).json(signal)?)
///     })
/// }
///
/// plugin!(bulk send_all);
/// # let signals = [Signal::builder("OrderPlaced").column("customer", "Ann").build()];
/// # assert_eq!(send_all(&signals), Ok(vec![signalbus_guest::Outcome::Sent]));
/// # let message = signalbus_guest::testing::take_published().remove(0);
/// # assert_eq!(message.body, br#"{"customer":"Ann"}"#);
/// ```
///
/// # Errors
///
/// Returns the outage that `message` or the bus reported: nothing may be assumed published.
pub fn publish_each(signals: &[Signal], mut message: impl FnMut(&Signal) -> Result<Message>) -> BulkResult {
    if let Some(lengths) = runs::of(signals)? {
        return publish_runs(signals, &lengths, message);
    }
    let mut messages = Vec::with_capacity(signals.len());
    let mut failures = Vec::with_capacity(signals.len());
    for signal in signals {
        match message(signal) {
            Ok(message) => {
                messages.push(message);
                failures.push(None);
            }
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => failures.push(Some(decided(error))),
        }
    }
    let mut published = publish(&messages)?.into_iter();
    let outcomes = failures.into_iter().map(|failure| {
        let outcome = failure.or_else(|| published.next());
        outcome.unwrap_or_else(unanswered)
    });
    Ok(outcomes.collect())
}

/// Publishes the messages of runs in order: each run up to the first signal for which there is no message.
fn publish_runs(signals: &[Signal], lengths: &[usize], mut message: impl FnMut(&Signal) -> Result<Message>) -> BulkResult {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; signals.len()];
    let mut lists = Vec::with_capacity(lengths.len());
    let ranges = runs::ranges(Some(lengths), signals.len());
    for range in &ranges {
        let mut list = Vec::with_capacity(range.len());
        for position in range.clone() {
            match message(&signals[position]) {
                Ok(message) => list.push(message),
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    let outcome = decided(error);
                    let goes_on = runs::goes_on(&outcome);
                    outcomes[position] = Some(outcome);
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        lists.push(list);
    }
    let mut published = Vec::new();
    if lists.iter().any(|list| !list.is_empty()) {
        published = host::publish_in_order(&lists).map_err(Error::of_outage)?;
    }
    published.resize_with(lists.len(), Vec::new);
    for (range, published) in ranges.into_iter().zip(published) {
        let (mut published, mut goes_on) = (published.into_iter(), true);
        for position in range {
            let told = outcomes[position].take().filter(|_| goes_on);
            let held = || runs::held(&signals[position]);
            let outcome = told.unwrap_or_else(|| match published.next() {
                Some(RunOutcome::Sent) => Outcome::Sent,
                Some(RunOutcome::Skip) => Outcome::Skip,
                Some(RunOutcome::Retry(retry)) => Outcome::Retry(retry),
                Some(RunOutcome::Reject(reason)) => Outcome::Reject(reason),
                Some(RunOutcome::Held) => held(),
                None if goes_on => unanswered(),
                None => held(),
            });
            goes_on &= runs::goes_on(&outcome);
            outcomes[position] = Some(outcome);
        }
    }
    Ok(outcomes.into_iter().flatten().collect())
}

fn unanswered() -> Outcome {
    Outcome::retry("relay returned no outcome for the message")
}

/// Publishes messages, and waits until the bus has confirmed each; the whole list costs about one round
/// trip. Entry `i` of the result is the outcome of message `i`.
///
/// For one message per signal, use [`publish_each`]. With this function, a signal may have any number of
/// messages, each with an id that begins with the signal's:
///
/// ```
/// use signalbus_guest::{Message, Outcome, Result, Signal, plugin, publish};
///
/// fn send(signal: &Signal) -> Result {
///     let copy = |topic: &str| Message::new("bus", topic).id(format!("{}/{topic}", signal.id())).body("placed");
///     let outcomes = publish(&[copy("orders"), copy("audit")])?;
///     let failed = outcomes.into_iter().find(|outcome| *outcome != Outcome::Sent);
///     Ok(failed.unwrap_or(Outcome::Sent))
/// }
///
/// plugin!(send);
/// # assert_eq!(send(&Signal::builder("OrderPlaced").build()), Ok(Outcome::Sent));
/// # assert_eq!(signalbus_guest::testing::take_published().len(), 2);
/// ```
///
/// # Errors
///
/// *Unavailable* if the bus cannot be reached, *misconfigured* if the connection does not exist or is not
/// granted: nothing may be assumed published.
pub fn publish(messages: &[Message]) -> BulkResult {
    runs::allow()?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let mut outcomes = host::publish(messages).map_err(Error::of_outage)?;
    if outcomes.len() != messages.len() {
        outcomes = vec![unanswered(); messages.len()];
    }
    Ok(outcomes)
}

impl Message {
    /// Creates an empty message for a destination (topic, subject, stream, exchange or table) on a
    /// connection that the configuration names and grants.
    ///
    /// ```
    /// use signalbus_guest::{Message, Result, Signal};
    ///
    /// fn message(signal: &Signal) -> Result<Message> {
    ///     let region: &str = signal.get("region")?;
    ///     Ok(Message::new("bus", "orders")
    ///         .id(signal.id())
    ///         .key(region)
    ///         .header("x-region", region)
    ///         .option("amqp.mandatory", "true")
    ///         .json(signal)?)
    /// }
    /// # let message = message(&Signal::builder("OrderPlaced").column("region", "eu").build())?;
    /// # assert_eq!((message.key.as_deref(), message.id.as_deref()), (Some("eu"), Some("OrderPlaced:1")));
    /// # assert_eq!(message.body, br#"{"region":"eu"}"#);
    /// # Ok::<(), signalbus_guest::Error>(())
    /// ```
    pub fn new(connection: impl Into<String>, destination: impl Into<String>) -> Self {
        Self {
            connection: connection.into(),
            destination: destination.into(),
            key: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
            id: None,
            options: Vec::new(),
        }
    }

    /// Sets the de-duplication key, normally [`Signal::id`](crate::Signal::id).
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the routing key (AMQP), record key (Kafka), and so on.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the body, e.g. text or bytes, which is published unchanged.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a value as JSON, and the content type to `application/json`. The value may be a
    /// [`Signal`].
    ///
    /// # Errors
    ///
    /// If the value cannot be represented in JSON, e.g. a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> std::result::Result<Self, serde_json::Error> {
        Ok(self.content_type("application/json").body(serde_json::to_vec(value)?))
    }

    /// Sets the media type of the body.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// Adds an option of one kind of bus, e.g. `amqp.mandatory`.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((key.into(), value.into()));
        self
    }

    /// Publishes this message; for many messages, [`publish`] is faster.
    ///
    /// ```
    /// use signalbus_guest::{Message, Result, Signal, plugin};
    ///
    /// fn send(signal: &Signal) -> Result {
    ///     Message::new("bus", "orders").id(signal.id()).json(signal)?.publish()
    /// }
    ///
    /// plugin!(send);
    /// # assert!(send(&Signal::builder("OrderPlaced").build()).is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`publish`].
    pub fn publish(self) -> Result<Outcome> {
        let mut outcomes = publish(&[self])?;
        Ok(outcomes.pop().unwrap_or_else(unanswered))
    }
}
