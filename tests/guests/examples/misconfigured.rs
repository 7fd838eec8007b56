//! Always returns an outage that needs an operator.

use signalbus_guest::{BulkResult, Error, Signal, plugin};

fn send_all(_: &[Signal]) -> BulkResult {
    Err(Error::misconfigured("setting \"url\" is missing"))
}

plugin!(bulk send_all);
