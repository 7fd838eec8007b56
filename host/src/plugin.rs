//! Plugins: whatever takes a batch of signals and answers for each of them.

use std::future::Future;
use std::pin::Pin;

use crate::signal::{Signal, SignalType, Verdict};

/// A future that a [`Sender`] answers with.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Takes a batch of signals to the bus. Never fails: whatever goes wrong inside is an outcome.
pub trait Sender: Send + Sync {
    /// Sends the signals; the answer has one outcome per signal, in their order, or is an outage.
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal]) -> Sending<'a>;
}
