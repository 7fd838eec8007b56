//! Rejects every signal.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    Ok(vec![Outcome::reject("always rejected"); signals.len()])
}

plugin!(bulk send_all);
