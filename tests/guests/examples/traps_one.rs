//! Panics; with the setting `poison` only where the column `payload` equals it. One per call.

use signalbus_guest::{Outcome, Result, Signal, plugin};
use signalbus_test_guests::trap;

fn send(signal: &Signal) -> Result {
    trap(signal);
    Ok(Outcome::Sent)
}

plugin!(send);
