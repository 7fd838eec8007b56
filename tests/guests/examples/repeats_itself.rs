//! Passes one text of 1000 bytes to the relay in 100000 fields of a single record, then sends. The guest
//! itself holds the text once.

wit_bindgen::generate!({
    path: "../../wit",
    world: "bulk-sender-plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
});

use exports::signalbus::plugin::bulk_sender::{Guest, Outage, Outcome, Signal, SignalType};
use signalbus::plugin::log::{Level, emit};

struct Plugin;

impl Guest for Plugin {
    fn send_signalbus_messages(_: SignalType, signals: Vec<Signal>) -> Result<Vec<Outcome>, Outage> {
        let text = "x".repeat(1000);
        emit(Level::Info, "repeated", &vec![("text", text.as_str()); 100_000]);
        Ok(signals.iter().map(|_| Outcome::Sent).collect())
    }
}

export!(Plugin);
