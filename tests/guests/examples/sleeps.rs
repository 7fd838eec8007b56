//! Never answers, and waits in the relay for its clock.

use signalbus_guest::{BulkResult, Signal, plugin};
use std::thread::sleep;
use std::time::Duration;

fn send_all(_: &[Signal]) -> BulkResult {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

plugin!(bulk send_all);
