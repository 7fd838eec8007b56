//! Publishes every signal as JSON over the connection `connection` (bus) to `destination`
//! (orders), and answers what the relay answered.

use signalbus_guest::{BulkResult, Message, Signal, config, plugin, publish_each};

fn send_all(signals: &[Signal]) -> BulkResult {
    let connection = config::get("connection").unwrap_or_else(|| "bus".to_owned());
    let destination = config::get("destination").unwrap_or_else(|| "orders".to_owned());
    publish_each(signals, |signal| {
        let message = Message::new(&connection, &destination).id(signal.id());
        Ok(message.json(signal)?)
    })
}

plugin!(bulk send_all);
