//! Sends every signal, one per call.

use signalbus_guest::{Outcome, Result, Signal, plugin};

fn send(_: &Signal) -> Result {
    Ok(Outcome::Sent)
}

plugin!(send);
