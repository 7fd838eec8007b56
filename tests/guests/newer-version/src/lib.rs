//! Publishes every signal through version 0.1.2 of the contract, without using its additions.

wit_bindgen::generate!({ path: "wit", world: "bulk-sender-plugin" });

use exports::signalbus::plugin::bulk_sender::{Guest, Outage, Outcome, Signal, SignalType};
use signalbus::plugin::types::Message;
use signalbus::plugin::{config, log, producer};

struct Plugin;

impl Guest for Plugin {
    fn send_signalbus_messages(signal_type: SignalType, signals: Vec<Signal>) -> Result<Vec<Outcome>, Outage> {
        let message = |signal: &Signal| Message {
            connection: config::get("connection").unwrap_or_default(),
            destination: signal_type.name.clone(),
            key: None,
            content_type: None,
            headers: Vec::new(),
            body: signal.id.clone().into_bytes(),
            id: Some(signal.id.clone()),
            options: Vec::new(),
        };
        log::emit(log::Level::Info, "published", &[]);
        producer::publish(&signals.iter().map(message).collect::<Vec<_>>())
    }
}

#[cfg(target_family = "wasm")]
export!(Plugin);
