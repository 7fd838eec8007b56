//! Returns one outcome too many.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    Ok(vec![Outcome::Sent; signals.len() + 1])
}

plugin!(bulk send_all);
