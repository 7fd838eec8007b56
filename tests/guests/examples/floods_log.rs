//! Logs `records` records (10,000) of `bytes` bytes (1,000) each, then sends.

use signalbus_guest::{BulkResult, Outcome, Signal, log, plugin};
use signalbus_test_guests::setting;

fn send_all(signals: &[Signal]) -> BulkResult {
    let text = "x".repeat(setting("bytes").unwrap_or(1_000));
    for record in 0..setting("records").unwrap_or(10_000) {
        log::info!("flood", record = record, text = text);
    }
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
