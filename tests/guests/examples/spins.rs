//! Logs that it was called, and never answers nor calls the relay again.

use signalbus_guest::{BulkResult, Signal, log, plugin};
use signalbus_test_guests::spin;

fn send_all(_: &[Signal]) -> BulkResult {
    log::info!("called");
    spin()
}

plugin!(bulk send_all);
