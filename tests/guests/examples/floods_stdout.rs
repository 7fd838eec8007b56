//! Prints `records` lines (10,000) of `bytes` bytes (1,000) each, then sends.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use signalbus_test_guests::setting;

fn send_all(signals: &[Signal]) -> BulkResult {
    let line = "x".repeat(setting("bytes").unwrap_or(1_000));
    for _ in 0..setting("records").unwrap_or(10_000) {
        println!("{line}");
    }
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
