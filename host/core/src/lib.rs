//! The core of SignalBus: signals, outcomes, settlement, and the messages that plugins publish.
//!
//! Knows no database, bus, plugin engine or clock, and never waits: the relay's decisions are plain
//! functions. Next: the flusher in `signalbus-relay`, which calls them.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod key;
pub mod message;
pub mod settlement;
pub mod signal;
pub mod suggest;
pub mod text;
pub mod units;
