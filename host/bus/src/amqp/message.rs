//! A message as AMQP carries it: the arguments of `basic.publish`.
//!
//! Refuses what does not fit; cuts and drops nothing. Next: `session`, which publishes it.

use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, PublisherConfirm};

use super::LONGEST_EXCHANGE;
use crate::{at_most, reject};
use signalbus_core::message::Message;
use signalbus_core::signal::Outcome;

/// A message converted to the arguments of `basic.publish`.
pub(super) struct AmqpPublish<'a> {
    pub(super) exchange: ShortString,
    key: ShortString,
    pub(super) options: BasicPublishOptions,
    properties: BasicProperties,
    body: &'a [u8],
}

impl<'a> AmqpPublish<'a> {
    /// Converts a message.
    ///
    /// # Errors
    /// AMQP cannot carry the message.
    pub(super) fn from_message(message: &'a Message, frame_max: usize) -> Result<Self, Outcome> {
        // The headers and properties travel in one frame.
        let size = properties_size(message);
        if size > frame_max {
            return Err(reject(format!(
                "headers and properties take {size} bytes, but RabbitMQ takes at most {frame_max}: shorten them, or raise `frame_max`"
            )));
        }
        at_most(LONGEST_EXCHANGE, "RabbitMQ", "`destination`", &message.destination)?;
        let mut options = BasicPublishOptions::default();
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if let Some(content_type) = &message.content_type {
            properties = properties.with_content_type(short("content-type", content_type)?);
        }
        if let Some(id) = &message.id {
            properties = properties.with_message_id(short("id", id)?);
        }
        if !message.headers.is_empty() {
            let mut headers = FieldTable::default();
            for (name, value) in &message.headers {
                headers.insert(short("header", name)?, AMQPValue::LongString(value.as_str().into()));
            }
            properties = properties.with_headers(headers);
        }
        for (name, value) in &message.options {
            let Some(name) = name.strip_prefix("amqp.") else { continue };
            match name {
                "mandatory" => options.mandatory = parsed(name, value)?,
                "persistent" => properties = properties.with_delivery_mode(if parsed(name, value)? { 2 } else { 1 }),
                "priority" => properties = properties.with_priority(parsed(name, value)?),
                "timestamp" => properties = properties.with_timestamp(parsed(name, value)?),
                "expiration" => properties = properties.with_expiration(parsed::<u64>(name, value)?.to_string().into()),
                "correlation-id" => properties = properties.with_correlation_id(short(name, value)?),
                "reply-to" => properties = properties.with_reply_to(short(name, value)?),
                "content-encoding" => properties = properties.with_content_encoding(short(name, value)?),
                "type" => properties = properties.with_type(short(name, value)?),
                "user-id" => properties = properties.with_user_id(short(name, value)?),
                "app-id" => properties = properties.with_app_id(short(name, value)?),
                "cluster-id" => properties = properties.with_cluster_id(short(name, value)?),
                _ => return Err(reject(format!("RabbitMQ has no option \"amqp.{name}\""))),
            }
        }
        Ok(Self {
            exchange: short("destination", &message.destination)?,
            key: short("key", message.key.as_deref().unwrap_or_default())?,
            options,
            properties,
            body: &message.body,
        })
    }

    /// Returns whether the server has returned this message, or an equal one.
    pub(super) fn is(&self, returned: &BasicReturnMessage) -> bool {
        let delivery = &returned.delivery;
        delivery.properties.message_id() == self.properties.message_id()
            && delivery.exchange == self.exchange
            && delivery.routing_key == self.key
            && delivery.data == self.body
    }

    pub(super) async fn send(&self, channel: &Channel) -> lapin::Result<PublisherConfirm> {
        let (exchange, key) = (self.exchange.clone(), self.key.clone());
        channel.basic_publish(exchange, key, self.options, self.body, self.properties.clone()).await
    }
}

/// Returns how many bytes the frame with the headers and properties takes, or a few more.
fn properties_size(message: &Message) -> usize {
    /// The frame's header and end, the header of the content, and the delivery mode.
    const FIXED: usize = 8 + 14 + 1 + 4;
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len() + 6);
    let texts = [&message.content_type, &message.id].into_iter().flatten();
    let texts = texts.chain(message.options.iter().map(|(_, value)| value)).map(|text| text.len() + 9);
    FIXED + headers.chain(texts).sum::<usize>()
}

fn short(what: &str, text: &str) -> Result<ShortString, Outcome> {
    at_most(255, "RabbitMQ", what, text)?;
    ShortString::try_new(text).map_err(|_| reject(format!("{what} is too long for RabbitMQ")))
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Outcome> {
    value.parse().map_err(|_| reject(format!("option \"amqp.{name}\" cannot be {value:?}")))
}
