//! Skips every signal.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    Ok(vec![Outcome::Skip; signals.len()])
}

plugin!(bulk send_all);
