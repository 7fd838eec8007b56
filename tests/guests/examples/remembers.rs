//! Keeps what a signal leaves in the instance: after a column `payload` of `break` it panics, and what
//! `mutter` says on standard error is no word on a later signal. `spin` never ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signalbus_guest::{BulkResult, Outcome, Signal, each, plugin};
use signalbus_test_guests::spin;

static BROKEN: AtomicBool = AtomicBool::new(false);

fn send_all(signals: &[Signal]) -> BulkResult {
    each(signals, |signal| {
        assert!(!BROKEN.load(Relaxed), "broken by an earlier signal");
        match signal.get("payload")? {
            "break" => BROKEN.store(true, Relaxed),
            "mutter" => eprint!("a word on {}", signal.id()),
            "spin" => spin(),
            _ => {}
        }
        Ok(Outcome::Sent)
    })
}

plugin!(bulk send_all);
