//! SignalBus: the transactional outbox relay whose senders are Wasm components.
#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod bus;
pub mod cli;
mod commands;
pub mod component;
pub mod config;
pub mod flusher;
pub mod message;
pub mod outbox;
pub mod plugin;
pub mod relay;
pub mod settlement;
pub mod signal;
pub mod suggest;
pub mod telemetry;
pub mod trial;
