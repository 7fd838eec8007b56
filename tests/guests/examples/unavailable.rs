//! Always returns an outage, with the time in the setting `after_ms` if it is given.

use signalbus_guest::{BulkResult, Error, Signal, plugin};
use signalbus_test_guests::millis;

fn send_all(_: &[Signal]) -> BulkResult {
    let error = Error::unavailable("bus is down");
    Err(match millis("after_ms") {
        Some(after) => error.after(after),
        None => error,
    })
}

plugin!(bulk send_all);
