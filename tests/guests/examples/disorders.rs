//! Does what the column `payload` says, as `outcomes` does, with every signal of a call: nothing is held behind a failure.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use signalbus_test_guests::obey;

fn send_all(signals: &[Signal]) -> BulkResult {
    Ok(signals.iter().map(|signal| obey(signal).unwrap_or_else(|error| Outcome::retry(error.reason()))).collect())
}

plugin!(bulk send_all);
