//! Does what the column `payload` says: `sent`, `skip`, `retry`, `retry:500` (milliseconds),
//! `reject`, `unavailable`, `misconfigured`, `trap`, `spin`.

use signalbus_guest::{BulkResult, Signal, each, plugin};
use signalbus_test_guests::obey;

fn send_all(signals: &[Signal]) -> BulkResult {
    each(signals, obey)
}

plugin!(bulk send_all);
