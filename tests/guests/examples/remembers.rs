//! Keeps state between the signals of an instance. After a signal whose column `payload` is `break`, the
//! next ones panic, `late` after a log record and two seconds. `mutter` writes to standard error, which
//! must not be quoted for a later signal. `spin` never ends.

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
