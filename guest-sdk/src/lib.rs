//! Write a SignalBus sender plugin in Rust.
//!
//! A plugin is one function. The relay calls it with a pending row, a *signal*, and deletes the
//! row only after the function has answered [`Outcome::Sent`] or [`Outcome::Skip`] for it:
//!
//! ```
//! use signalbus_guest::{Outcome, Result, Signal, log, plugin};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: i64,
//!     total: String,
//! }
//!
//! fn send(signal: &Signal) -> Result {
//!     let order: Order = signal.row()?;
//!     log::info!("order placed", id = order.id, total = order.total);
//!     Ok(Outcome::Sent)
//! }
//!
//! plugin!(send);
//! # let signal = Signal::builder("OrderPlaced").column("id", 1).column("total", "12.50").build();
//! # assert_eq!(send(&signal), Ok(Outcome::Sent));
//! ```
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! ```text
//! cargo build --release --target wasm32-wasip2
//! ```
//!
//! # How do I …
//!
//! | task | with |
//! |---|---|
//! | read the row into a type of my own | [`Signal::row`] |
//! | read one column | [`Signal::get`] |
//! | let an error mean retry | `?` |
//! | let an error mean reject, skip, outage | [`Verdict`]: `.or_reject()?` |
//! | send many signals in one call | [`BulkResult`], `plugin!(bulk send_all)`, [`each`] |
//! | publish to a bus | [`Message`], [`publish_each`], [`publish`] |
//! | ask an HTTP server, or many at once | [`http::send`], [`http::send_all`] |
//! | read settings and secrets | [`config`] |
//! | log | [`log`] |
//! | test it on my own machine | [`Signal::builder`], `testing` |
//!
//! # What the answers mean
//!
//! | answer | the relay |
//! |---|---|
//! | `Ok(Outcome::Sent)` | deletes the row |
//! | `Ok(Outcome::Skip)`, `.or_skip()?` | deletes the row, and counts it apart |
//! | `Ok(Outcome::retry("…"))`, `?` | keeps the row for another attempt, and charges this one |
//! | `Ok(Outcome::reject("…"))`, `.or_reject()?` | makes it a dead letter |
//! | `.or_unavailable()?` | pauses the signal type, and charges nothing |
//! | `.or_misconfigured()?` | parks the signal type until an operator acts, and charges nothing |
//! | a panic | sends the batch again, one by one, and charges only the guilty signal |
//!
//! Delivery is at-least-once: after a crash the same row may come again, so hand
//! [`Signal::id`] on as the de-duplication key.
//!
//! # Order
//!
//! In an ordered signal type ([`Signal::is_ordered`]) a bulk plugin must send nothing past a
//! signal that has to be retried, and answer *retry* for the rest; the relay charges nothing for
//! what was not tried. [`each`] and [`publish_each`] do that.
//!
//! # What a plugin sees
//!
//! Its columns, its settings and secrets, clocks, random numbers, and what the configuration
//! grants. Standard output and standard error become log lines. There is no environment, no file
//! and no network beyond the grants.

#![deny(unsafe_code, missing_docs)]

#[doc(hidden)]
#[allow(missing_docs, reason = "generated")]
pub mod bindings;
mod bulk;
pub mod config;
mod export;
mod fault;
#[cfg(target_family = "wasm")]
mod host;
pub mod http;
mod json;
pub mod log;
mod message;
mod outcome;
mod row;
mod signal;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod value;

#[cfg(not(target_family = "wasm"))]
use testing::host;

#[doc(inline)]
pub use bindings::types::{Column, Message, Outcome, Value};
pub use bulk::{BulkResult, each};
pub use message::{publish, publish_each};
pub use outcome::{Error, Result, Verdict};
pub use row::RowError;
pub use signal::{Signal, SignalBuilder};

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::bindings::types::{Outage, Signal as Row, SignalType};
    pub use crate::export::{bulk, single};
}
