//! Returns one outcome too few.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    Ok(vec![Outcome::Sent; signals.len().saturating_sub(1)])
}

plugin!(bulk send_all);
