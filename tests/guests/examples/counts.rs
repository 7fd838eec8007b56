//! Logs `counted` with the `ids` of the call, then sends. With the setting `delay_ms`, sleeps first.

use signalbus_guest::{BulkResult, Outcome, Signal, log, plugin};
use signalbus_test_guests::{ids, millis};

fn send_all(signals: &[Signal]) -> BulkResult {
    if let Some(delay) = millis("delay_ms") {
        std::thread::sleep(delay);
    }
    // A longer record would be cut.
    for signals in signals.chunks(80) {
        log::info!("counted", ids = ids(signals));
    }
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
