//! Sends every signal, and uses the additions of version 0.1.2 of the contract.

wit_bindgen::generate!({ path: "wit", world: "bulk-sender-plugin" });

use exports::signalbus::plugin::bulk_sender::{Guest, Outage, Outcome, Signal, SignalType};
use signalbus::plugin::{clock, log};

struct Plugin;

impl Guest for Plugin {
    fn send_signalbus_messages(_: SignalType, signals: Vec<Signal>) -> Result<Vec<Outcome>, Outage> {
        log::emit(log::Level::Info, "now", &[("milliseconds".into(), clock::now().to_string())]);
        log::flush();
        Ok(vec![Outcome::Sent; signals.len()])
    }
}

#[cfg(target_family = "wasm")]
export!(Plugin);
