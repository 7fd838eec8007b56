//! Like `counts`, with one signal per call.

use signalbus_guest::{Outcome, Result, Signal, log, plugin};
use signalbus_test_guests::millis;

fn send(signal: &Signal) -> Result {
    if let Some(delay) = millis("delay_ms") {
        std::thread::sleep(delay);
    }
    log::info!("counted", ids = signal.id());
    Ok(Outcome::Sent)
}

plugin!(send);
