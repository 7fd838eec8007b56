//! Keeps what a signal leaves in the instance: after a column `payload` of `break` it panics, and what
//! `mutter` says on standard error is no word on a later signal. `late` panics after two seconds,
//! having said so. `spin` never ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signalbus_guest::{BulkResult, Outcome, Signal, each, log, plugin};
use signalbus_test_guests::spin;

static BROKEN: AtomicBool = AtomicBool::new(false);

fn send_all(signals: &[Signal]) -> BulkResult {
    each(signals, |signal| {
        let payload = signal.get("payload")?;
        if BROKEN.load(Relaxed) {
            if payload == "late" {
                log::info!("will panic");
                std::thread::sleep(std::time::Duration::from_secs(2));
            }
            panic!("broken by an earlier signal");
        }
        match payload {
            "break" => BROKEN.store(true, Relaxed),
            "mutter" => eprint!("a word on {}", signal.id()),
            "spin" => spin(),
            _ => {}
        }
        Ok(Outcome::Sent)
    })
}

plugin!(bulk send_all);
