//! The port between plugins and buses: the messages that plugins publish, and their publisher.
//!
//! Knows no bus, plugin engine or database. Next: `signalbus-bus`, which implements [`Publisher`].

use std::pin::Pin;

use crate::signal::Verdict;

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

/// The future returned by [`Publisher::publish`].
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Publishes messages to a bus.
pub trait Publisher: Send + Sync {
    /// Publishes every message and waits, for a limited time, until the bus has confirmed each.
    ///
    /// Returns one outcome per message, in order, or an outage, after which no message may be assumed
    /// to have arrived.
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_>;
}
