//! Plugins: whatever takes a batch of signals and answers for each of them.
#![forbid(unsafe_code)]

mod batch;
mod call;
#[cfg(feature = "http")]
mod client;
mod engine;
mod generations;
mod grants;
mod guest;
#[cfg_attr(not(feature = "http"), path = "without_http.rs")]
mod http;
mod inspect;
mod journal;
mod limits;
mod load;
mod peers;
mod produce;
mod reach;
mod send;
mod tape;
mod tcp;
mod wit;

use std::future::Future;
use std::pin::Pin;

use tokio_util::sync::CancellationToken;

pub use http::check_authorities;
pub use engine::Engine;
pub use generations::{Fate, Generations, Recipe, Tenure};
pub use grants::Grants;
pub use inspect::{Need, is_interpreted, need};
pub use limits::Limits;
pub use load::{LoadError, Plugin, digest};
pub use peers::{HttpOrigin, TcpPeer};
pub use produce::Connections;
pub use reach::Network;
pub use tape::{Call, Failed, Record, Tape};

use signalbus_core::signal::{Signal, SignalType, Verdict};

/// A future that a [`Sender`] answers with.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Takes a batch of signals to the bus. Never fails: whatever goes wrong inside is an outcome.
pub trait Sender: Send + Sync {
    /// Sends the signals; the answer has one outcome per signal, in their order, or is an outage.
    /// After `stop` no further call is begun; what was not reached is `Held`.
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a>;
}

/// A function in a plugin's place: for applications that hold the library, and for measurements.
impl<F> Sender for F
where
    F: Fn(&SignalType, &[Signal]) -> Verdict + Send + Sync,
{
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], _: &'a CancellationToken) -> Sending<'a> {
        Box::pin(std::future::ready(self(signal_type, signals)))
    }
}
