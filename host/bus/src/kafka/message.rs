//! A message as Kafka carries it.
//!
//! Refuses what does not fit; cuts and drops nothing. Next: `outcome`, what becomes of it.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;

use crate::{at_most, parsed, reject};
use signalbus_core::message::Message;
use signalbus_core::signal::Outcome;

pub(super) type Record<'a> = FutureRecord<'a, str, [u8]>;

/// Converts a message.
///
/// # Errors
/// Kafka cannot carry the message.
pub(super) fn record(message: &Message) -> Result<Record<'_>, Outcome> {
    let topic = message.destination.as_str();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    at_most(249, "Kafka", "`destination`", topic)?;
    if ["", ".", ".."].contains(&topic) || !topic.bytes().all(legal) {
        return Err(reject(format!(
            "{topic:?} is not a valid topic name: it takes letters and digits of ASCII, `.`, `_` and `-`"
        )));
    }
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 2);
    let known = [("content-type", message.content_type.as_deref()), ("id", message.id.as_deref())];
    let known = known.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    for (key, value) in message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(known) {
        if key.contains('\0') {
            return Err(reject(format!("header {key:?}: the name contains a zero byte, which Kafka does not allow")));
        }
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = Record::to(topic).payload(message.body.as_slice()).headers(headers);
    record.key = message.key.as_deref();
    for (name, value) in &message.options {
        match name.strip_prefix("kafka.") {
            // A negative one would mean any.
            Some("partition") => record.partition = Some(parsed::<u32>(name, value)?.try_into().unwrap_or(i32::MAX)),
            Some("timestamp") => record.timestamp = Some(parsed(name, value)?),
            Some("tombstone") if parsed(name, value)? => {
                if !message.body.is_empty() {
                    return Err(reject("option \"kafka.tombstone\" is for a message without a body"));
                }
                record.payload = None;
            }
            Some("tombstone") => {}
            Some(_) => return Err(reject(format!("Kafka has no option \"{name}\""))),
            None => {}
        }
    }
    Ok(record)
}
