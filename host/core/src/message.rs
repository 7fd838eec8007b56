//! The port between plugins and buses: the messages that plugins publish, and their publisher.
//!
//! Knows no bus, plugin engine or database. Next: `signalbus-bus`, which implements [`Publisher`].

use std::pin::Pin;

use crate::signal::{Outage, Outcome, Verdict};

/// A message for a bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Name of the connection in the configuration; never an address.
    pub connection: String,
    /// Topic, subject, stream, exchange or table.
    pub destination: String,
    /// Routing key (AMQP), record key (Kafka) or the like.
    pub key: Option<String>,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Deduplication key, normally `Signal::id`.
    pub id: Option<String>,
    /// Bus-specific options, e.g. `amqp.mandatory`.
    pub options: Vec<(String, String)>,
}

/// What a header or an option of a message does on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It concerns its own message only.
    Plain,
    /// It names the message to the bus or to consumers, as its id does.
    Identifies,
    /// It may remove, replace or overtake what others have sent.
    Overrides,
}

/// The future returned by [`Publisher::publish`].
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// What became of a message of a run: its outcome ([`Outcome::Held`] if it was not tried, or does not count, behind a
/// failure), or the outage for which that is unknown: it was not confirmed, and may have arrived.
pub type RunReceipt = Result<Outcome, Outage>;

/// The future returned by [`Publisher::publish_in_order`].
pub type PublishingInOrder<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vec<RunReceipt>>, Outage>> + Send + 'a>>;

/// Publishes messages to a bus.
pub trait Publisher: Send + Sync {
    /// Publishes every message and waits, for a limited time, until the bus has confirmed each.
    ///
    /// Returns one outcome per message, in order, or an outage, after which no message may be assumed
    /// to have arrived.
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_>;

    /// Publishes runs of messages, and waits as `publish` does. The messages of a run arrive in their order; runs are
    /// independent of one another.
    ///
    /// Returns a list of receipts for each run. In a run, nothing behind a message that was not sent counts as sent: it is
    /// held, or its fate is unknown. An outage of the whole call means that no message may be assumed to have arrived.
    fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_>;

    /// Returns whether messages for this destination administer the bus, or are its own records.
    fn administers(&self, _destination: &str) -> bool {
        false
    }

    /// Returns what a header of this name does.
    fn effect_of_header(&self, _name: &str) -> Effect {
        Effect::Plain
    }

    /// Returns what an option does with this value.
    fn effect_of_option(&self, _name: &str, _value: &str) -> Effect {
        Effect::Plain
    }
}
