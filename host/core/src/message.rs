//! What a plugin hands to a bus, and what a bus offers to plugins.
//!
//! Nothing here knows a bus, a plugin engine or a database.

use std::pin::Pin;

use crate::signal::Verdict;

/// One message for a bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Name of a connection in the configuration, never an address.
    pub connection: String,
    /// Topic, subject, stream, exchange or table.
    pub destination: String,
    /// Routing key (AMQP), record key (Kafka), and so on.
    pub key: Option<String>,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// De-duplication key, normally `Signal::id`.
    pub id: Option<String>,
    /// Switches of one kind of bus, e.g. `amqp.mandatory`.
    pub options: Vec<(String, String)>,
}

/// A future that a [`Publisher`] answers with.
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Takes messages to a bus.
pub trait Publisher: Send + Sync {
    /// Publishes every message, and waits until the bus has confirmed each, for a limited time. The
    /// answer has one outcome per message, in their order, or is an outage: then no message may be
    /// assumed to have arrived.
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_>;
}
