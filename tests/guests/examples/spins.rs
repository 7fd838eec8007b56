//! Never answers, and never calls the relay.

use signalbus_guest::{BulkResult, Signal, plugin};
use signalbus_test_guests::spin;

fn send_all(_: &[Signal]) -> BulkResult {
    spin()
}

plugin!(bulk send_all);
