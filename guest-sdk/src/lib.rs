//! Write a SignalBus sender plugin in Rust.
//!
//! A plugin is one function. The relay calls it with a pending row, a *signal*, and deletes the row
//! only after the function has returned [`Outcome::Sent`] or [`Outcome::Skip`] for it:
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
//! A plugin built for `wasm32-unknown-unknown` imports nothing from WASI, unless it sends HTTP
//! requests. It is a core module, which `signalbus plugin build` or `wasm-tools component new` turns
//! into a component; it has no clock and no random numbers, and reports panics through the log.
//!
//! # How do I …
//!
//! | task | with |
//! |---|---|
//! | read the row into a type of my own | [`Signal::row`] |
//! | read one column | [`Signal::get`] |
//! | read decimals, UUIDs, dates, times | [types of other crates](#types-of-other-crates) |
//! | retry on an error | `?`, which converts it into [`Error`] |
//! | reject, skip or report an outage on an error | [`Verdict`]: `.or_reject()?` |
//! | send many signals in one call | [`BulkResult`], [`plugin!(bulk send_all)`](plugin!), [`each`] |
//! | publish to a bus | [`Message::new`], [`publish_each`], [`publish`] |
//! | send one HTTP request, or many at once | [`http::send`], [`http::send_each`], [`http::send_all`] |
//! | read settings and secrets | [`config`] |
//! | log | [`log`] |
//! | test it on my own machine | [`Signal::builder`], [`testing`] |
//!
//! # Types of other crates
//!
//! A field of such a type is read exactly or not at all. Each feature re-exports its crate, so a plugin
//! need not depend on it; a dependency of its own on the same version works as well.
//!
//! | feature | type of the field | column's value |
//! |---|---|---|
//! | `decimal` | [`rust_decimal`](https://docs.rs/rust_decimal)'s `Decimal` | decimal, int64, float64, text |
//! | `uuid` | [`uuid`](https://docs.rs/uuid)'s `Uuid` | uuid, text, 16 bytes |
//! | `time` | [`time`](https://docs.rs/time)'s `Date`, `Time`, `PrimitiveDateTime` | date, time, datetime, text |
//! | | `OffsetDateTime`, `UtcDateTime` | timestamp, text |
//! | `chrono` | [`chrono`](https://docs.rs/chrono)'s `NaiveDate`, `NaiveTime`, `NaiveDateTime` | date, time, datetime, text |
//! | | `DateTime<Utc>`, `DateTime<FixedOffset>` | timestamp, text |
//!
//! ```toml
//! [dependencies]
//! signalbus-guest = { version = "0.1", features = ["decimal", "time", "uuid"] }
//! ```
//!
//! ```
//! # #[cfg(all(feature = "decimal", feature = "time", feature = "uuid"))] {
//! use signalbus_guest::{Signal, rust_decimal::Decimal, time::OffsetDateTime, uuid::Uuid};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: Uuid,
//!     total: Decimal,
//!     placed: OffsetDateTime,
//!     paid: Option<OffsetDateTime>,
//! }
//!
//! # use signalbus_guest::Value;
//! # let signal = Signal::builder("OrderPlaced")
//! #     .column("id", Value::Uuid("0198c7a4-0000-7000-8000-000000000001".into()))
//! #     .column("total", Value::Decimal("12.50".into()))
//! #     .column("placed", Value::Timestamp("2026-02-28T23:59:59Z".into()))
//! #     .column("paid", Value::Null)
//! #     .build();
//! let order: Order = signal.row()?;
//! # assert_eq!((order.total.to_string(), order.placed.year(), order.paid), ("12.50".into(), 2026, None));
//! # assert_eq!(order.id.get_version_num(), 7);
//! # }
//! # Ok::<(), signalbus_guest::RowError>(())
//! ```
//!
//! Inside a JSON column, each type accepts what its crate accepts in JSON.
//!
//! # What results mean
//!
//! | result | the relay |
//! |---|---|
//! | `Ok(Outcome::Sent)` | deletes the row |
//! | `Ok(Outcome::Skip)`, `.or_skip()?` | deletes the row, and counts it separately |
//! | `Ok(Outcome::retry("…"))`, `?` | keeps the row for another attempt, and charges this one |
//! | `Ok(Outcome::reject("…"))`, `.or_reject()?` | makes it a dead letter |
//! | `.or_unavailable()?` | pauses the signal type, and charges nothing |
//! | `.or_misconfigured()?` | parks the signal type until an operator acts, and charges nothing |
//! | a panic | sends the batch again, one by one, and charges only the guilty signal |
//!
//! Delivery is at-least-once: after a crash the same row may be sent again, so pass on [`Signal::id`] as
//! the de-duplication key.
//!
//! # Order
//!
//! Order is preserved by itself, in an ordered signal type ([`Signal::is_ordered`]): nothing is sent before
//! what is ahead of it with the same order key, nor behind a signal that fails. With `plugin!(send)`, and where
//! `plugin!(bulk send_all)` passes all its signals on to [`each`], [`publish_each`] or [`http::send_each`], a
//! call has whole *runs*, many signals of one order key, which go at full speed. Any other function gets one
//! signal of each order key at a time: it may always send its signals concurrently. (To find that out, the
//! SDK refuses the first [`publish`], [`http::send`] or [`http::send_all`] of a call with runs, and calls the
//! function again. What a plugin sends without the SDK, it has to put in order itself.)
//!
//! # What a plugin sees
//!
//! Its columns, its settings and secrets, clocks, random numbers, and what the configuration grants.
//! Standard output and standard error become log lines. There is no environment, no file system, and no
//! network beyond the grants.

#![deny(unsafe_code, missing_docs)]

#[doc(hidden)]
#[allow(missing_docs, reason = "generated")]
pub mod bindings;
mod bulk;
pub mod config;
mod export;
mod fault;
#[cfg(any(feature = "decimal", feature = "time"))]
mod foreign;
#[cfg(target_family = "wasm")]
mod host;
pub mod http;
mod json;
pub mod log;
mod message;
mod outcome;
mod row;
mod runs;
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

#[cfg(feature = "chrono")]
pub use chrono;
#[cfg(feature = "decimal")]
pub use rust_decimal;
#[cfg(feature = "time")]
pub use time;
#[cfg(feature = "uuid")]
pub use uuid;

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::bindings::types::{Outage, RunOutcome, Signal as Row, SignalType};
    pub use crate::export::{bulk, bulk_runs, each, each_run, single};
}
