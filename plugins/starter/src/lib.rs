//! Sends placed orders to the log. Copy it, and put your own bus in its place.

#![forbid(unsafe_code)]

use signalbus_guest::{Outcome, Result, Signal, Verdict, log, plugin};

/// The columns that this plugin reads; others are passed over.
#[derive(serde::Deserialize)]
struct Order {
    id: i64,
    customer: String,
    total: String, // NUMERIC is exact text
}

fn send(signal: &Signal) -> Result {
    let order: Order = signal.row().or_reject()?; // can never be sent: a dead letter
    if order.customer.is_empty() {
        return Ok(Outcome::retry("customer is not known yet")); // later again
    }
    log::info!("order placed", id = order.id, total = order.total);
    Ok(Outcome::Sent) // and the row is deleted
}

plugin!(send);
