//! SignalBus: a transactional outbox relay whose senders are WebAssembly components.
//!
//! This package is the command `signalbus`; it holds arguments and output, and decides nothing about
//! signals. Its library re-exports the crates that the command is built from. Next: `cli`, then
//! `commands`.
#![forbid(unsafe_code)]

pub mod cli;
mod commands;
mod logging;

#[cfg(feature = "author")]
pub use signalbus_authoring::{component, testing};
pub use signalbus_bus as bus;
pub use signalbus_core::{backoff, message, settlement, signal, suggest};
pub use signalbus_outbox as outbox;
pub use signalbus_plugin as plugin;
pub use signalbus_relay as relay;
#[cfg(feature = "admin")]
pub use signalbus_relay::admin;
pub use signalbus_relay::{config, flusher};
pub use signalbus_telemetry as telemetry;
