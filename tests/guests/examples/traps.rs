//! Panics; with the setting `poison`, only if a column `payload` equals it.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use signalbus_test_guests::trap;

fn send_all(signals: &[Signal]) -> BulkResult {
    signals.iter().for_each(trap);
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
