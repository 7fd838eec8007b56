//! Retries every signal, after the time in the setting `after_ms` if it is given.

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
