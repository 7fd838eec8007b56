//! Publishes every signal as JSON, and returns the relay's outcomes. The settings are `connection` (bus),
//! `destination` (orders), which a column `destination` overrides, `headers` and `options` in the form
//! `name=value,name=value`, `key` with the name of a column, `id`, which is `none` for messages
//! without an id, and `under`: the id of every message, in which `ID` stands for that of the signal.

use signalbus_guest::{BulkResult, Message, Signal, config, plugin, publish_each};

fn pairs(setting: &str) -> Vec<(String, String)> {
    let text = config::get(setting).unwrap_or_default();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let connection = config::get("connection").unwrap_or_else(|| "bus".to_owned());
    let destination = config::get("destination").unwrap_or_else(|| "orders".to_owned());
    let (headers, options) = (pairs("headers"), pairs("options"));
    publish_each(signals, |signal| {
        let own: Option<String> = signal.get("destination").ok();
        let mut message = Message::new(&connection, own.as_ref().unwrap_or(&destination));
        if config::get("id").as_deref() != Some("none") {
            let under = config::get("under").unwrap_or_else(|| "ID".to_owned());
            message = message.id(under.replace("ID", signal.id()));
        }
        if let Some(column) = config::get("key") {
            message = message.key(signal.get::<String>(&column)?);
        }
        message.headers = headers.clone();
        message.options = options.clone();
        Ok(message.json(signal)?)
    })
}

plugin!(bulk send_all);
