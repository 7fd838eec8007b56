//! Logs that it was called, never answers, and waits in the relay for its clock.

use signalbus_guest::{BulkResult, Signal, log, plugin};
use std::thread::sleep;
use std::time::Duration;

fn send_all(_: &[Signal]) -> BulkResult {
    log::info!("called");
    loop {
        sleep(Duration::from_secs(3600));
    }
}

plugin!(bulk send_all);
