//! Like `outcomes`, with one signal per call; logs `counted` with the `ids` of each signal that it sends.

use signalbus_guest::{Outcome, Result, Signal, log, plugin};
use signalbus_test_guests::obey;

fn send(signal: &Signal) -> Result {
    let outcome = obey(signal)?;
    if outcome == Outcome::Sent {
        log::info!("counted", ids = signal.id());
    }
    Ok(outcome)
}

plugin!(send);
