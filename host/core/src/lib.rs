//! The rules of SignalBus: what a signal is, what becomes of it, and what goes over a bus.
//!
//! Nothing here knows a database, a bus, a plugin engine or a clock, and nothing waits: the relay's
//! decisions are plain functions. The story goes on in `signalbus-relay`'s flusher, which feeds them.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod key;
pub mod message;
pub mod settlement;
pub mod signal;
pub mod suggest;
pub mod units;
