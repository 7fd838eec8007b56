//! The plugin host: loads, calls and contains WebAssembly plugins, and everything else that sends.
//!
//! Knows neither the outbox nor the buses, and is the only crate that names wasmtime. `load` makes a
//! [`Plugin`] of a file, `send` decides on the calls for a batch, `call` makes them.
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "http"), allow(dead_code, reason = "HTTP alone asks for parts of a grant"))]

mod allowance;
mod backtrace;
mod batch;
#[cfg(feature = "http")]
mod budget;
mod call;
mod call_log;
#[cfg(feature = "http")]
mod client;
mod compiler;
mod connection_grant;
mod debug_info;
mod descriptors;
mod egress;
mod endpoints;
mod engine;
mod generations;
mod grants;
mod guest;
#[cfg_attr(not(feature = "http"), path = "without_http.rs")]
mod http;
mod inspect;
mod last_words;
mod limits;
mod load;
mod logs;
mod lookup;
mod own_ids;
mod plugin_context;
mod producer;
mod publishing;
mod runs;
mod send;
mod spec;
mod tcp;
mod turns;
mod wit;
mod worker;
mod wrong_value;

use std::future::Future;
use std::pin::Pin;

use tokio_util::sync::CancellationToken;

pub use call_log::{Call, CallLog, Failed, Record};
pub use compiler::{Compiler, cache_folder};
pub use connection_grant::ConnectionGrant;
pub use debug_info::Place;
pub use descriptors::raise_descriptor_limit;
pub use egress::Network;
pub use endpoints::{HttpOrigin, TcpPeer};
pub use engine::Engine;
pub use generations::{GenerationRecord, GenerationStatus, Generations};
pub use grants::Grants;
pub use http::check_authorities;
pub use inspect::{Need, is_interpreted, need};
pub use limits::Limits;
pub use load::{LoadError, Plugin, digest};
pub use producer::Connections;
pub use spec::PluginSpec;
pub use worker::{Job, Work};

use signalbus_core::signal::{Signal, SignalType, Verdict};

/// The future that [`Sender::send`] returns.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Sends batches of signals. Never fails: whatever goes wrong inside is an outcome.
pub trait Sender: Send + Sync {
    /// Sends the signals, and returns one outcome per signal, in their order, or an outage. After `stop`
    /// no further call starts; the remaining signals are `Held`.
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a>;
}

/// A function in place of a plugin, for applications that embed the library, and for benchmarks.
impl<F> Sender for F
where
    F: Fn(&SignalType, &[Signal]) -> Verdict + Send + Sync,
{
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], _: &'a CancellationToken) -> Sending<'a> {
        Box::pin(std::future::ready(self(signal_type, signals)))
    }
}
