//! Fails every time; setting `after_ms`: the earliest useful moment of the next attempt.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use signalbus_test_guests::millis;

fn send_all(signals: &[Signal]) -> BulkResult {
    let outcome = match millis("after_ms") {
        Some(after) => Outcome::retry_after(after, "always fails"),
        None => Outcome::retry("always fails"),
    };
    Ok(vec![outcome; signals.len()])
}

plugin!(bulk send_all);
