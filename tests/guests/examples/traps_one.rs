//! Like `traps`, with one signal per call.

use signalbus_guest::{Outcome, Result, Signal, plugin};
use signalbus_test_guests::trap;

fn send(signal: &Signal) -> Result {
    trap(signal);
    Ok(Outcome::Sent)
}

plugin!(send);
