//! Logs placed orders. Copy this plugin, and replace the log with your own bus.

#![forbid(unsafe_code)]

use signalbus_guest::{Outcome, Result, Signal, Verdict, log, plugin};

/// The columns that this plugin reads; others are ignored.
#[derive(serde::Deserialize)]
struct Order {
    id: i64,
    customer: String,
    total: String, // NUMERIC is passed as exact text
}

fn send(signal: &Signal) -> Result {
    let order: Order = signal.row().or_reject()?; // can never be sent: a dead letter
    if order.customer.is_empty() {
        return Ok(Outcome::retry("customer is not known yet")); // tried again later
    }
    log::info!("order placed", id = order.id, total = order.total);
    Ok(Outcome::Sent) // the row is deleted
}

plugin!(send);
