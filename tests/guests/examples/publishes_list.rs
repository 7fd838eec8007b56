//! Publishes every signal's id, all of a call as one list: it knows no order, and nothing of other versions.

use signalbus_guest::{BulkResult, Message, Signal, config, plugin, publish};

fn send_all(signals: &[Signal]) -> BulkResult {
    let destination = config::get("destination").unwrap_or_else(|| "orders".to_owned());
    let message = |signal: &Signal| Message::new("bus", &destination).id(signal.id()).body(signal.id());
    publish(&signals.iter().map(message).collect::<Vec<_>>())
}

plugin!(bulk send_all);
