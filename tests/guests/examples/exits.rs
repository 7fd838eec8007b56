//! Exits with the status in the setting `code` (0).

use signalbus_guest::{BulkResult, Signal, plugin};
use signalbus_test_guests::setting;

fn send_all(_: &[Signal]) -> BulkResult {
    std::process::exit(setting("code").unwrap_or(0))
}

plugin!(bulk send_all);
