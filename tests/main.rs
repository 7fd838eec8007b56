//! The end-to-end tests: one program, so that they share their servers, and wait beside one another.
#![allow(unreachable_pub, reason = "the harness is shared with the benchmarks")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on ends"
)]

mod harness;

mod architecture;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats", feature = "redis", feature = "mqtt", feature = "inbox"))]
mod buses;
mod commands;
mod faults;
mod hostile;
mod outbox;
#[cfg(feature = "author")]
mod plugins;
#[cfg(feature = "http")]
mod reach;
mod run;
mod sandbox;
mod values;
#[cfg(feature = "http")]
mod webhook;
