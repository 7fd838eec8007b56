//! RabbitMQ, and other AMQP 0-9-1 servers with publisher confirms.
//!
//! A message must never count as sent before its confirm has arrived. `shared_connection` connects;
//! `instrumented` measures and redacts.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Confirmation, ConnectionBuilder, ConnectionProperties, ErrorKind, ExchangeKind, PublisherConfirm,
};
use tokio::time::{Instant, timeout_at};

use super::shared_connection::SharedConnection;
use super::{Bus, ConnectionConfig, Receipt, Receiving, reject, unavailable};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to RabbitMQ; each call publishes through a channel of its own.
pub(super) struct Amqp {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    timeout: Duration,
    connection: SharedConnection<Session>,
}

struct Session {
    connection: lapin::Connection,
    /// Channels that are not in use.
    idle: Mutex<Vec<Channel>>,
    /// Exchanges known to exist.
    exchanges: Mutex<HashSet<String>>,
}

/// A message converted to the arguments of `basic.publish`.
struct AmqpPublish<'a> {
    exchange: ShortString,
    key: ShortString,
    options: BasicPublishOptions,
    properties: BasicProperties,
    body: &'a [u8],
}

/// A published message without a confirm yet, and its position in the list.
type Pending = (usize, PublisherConfirm);

impl Amqp {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        if !config.options.is_empty() {
            return Err("RabbitMQ takes no `options`; configure it in the URL".into());
        }
        config.refuse_unknown(&["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"])?;
        let mut uri: AMQPUri = config.url.as_str().parse()?;
        // (The parser takes an IPv6 address for none at all.)
        if let Some(host) = config.host() {
            uri.authority.host = host;
        }
        let tls = OwnedTLSConfig { cert_chain: config.ca.clone(), ..OwnedTLSConfig::default() };
        Ok(Self { uri, tls, timeout: config.timeout, connection: SharedConnection::new(config.timeout) })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let name = format!("signalbus {}", env!("CARGO_PKG_VERSION"));
        let builder = lapin::DefaultConnectionBuilder::new().map_err(|error| unavailable(error.to_string()))?;
        let builder: ConnectionBuilder<_> = builder
            .with_uri(self.uri.clone())
            .with_properties(ConnectionProperties::default().with_connection_name(name.into()))
            .with_tls_config(self.tls.clone());
        match builder.connect().await {
            Ok(connection) => Ok(Session { connection, idle: Mutex::default(), exchanges: Mutex::default() }),
            Err(error) => Err(refused(&error, &self.uri)),
        }
    }

    async fn send(&self, messages: &[Message]) -> Result<Vec<Receipt>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect()).await?;
        if session.connection.status().blocked() {
            return Err(unavailable("RabbitMQ is low on memory or disk, and blocks publishers"));
        }
        let deadline = Instant::now() + self.timeout;
        let mut receipts: Vec<Option<Receipt>> = vec![None; messages.len()];
        let mut prepared = Vec::with_capacity(messages.len());
        for (position, message) in messages.iter().enumerate() {
            match AmqpPublish::from_message(message) {
                Ok(publish) => match session.missing(&publish.exchange, deadline).await {
                    Ok(None) => prepared.push((position, publish)),
                    Ok(Some(missing)) => receipts[position] = Some(Ok(missing)),
                    Err(error) => receipts[position] = Some(Err(error.to_string())),
                },
                Err(outcome) => receipts[position] = Some(Ok(outcome)),
            }
        }
        session.publish_all(&prepared, &mut receipts, deadline).await;
        // A closed channel may leave more messages unconfirmed than the faulty one.
        for (position, publish) in &prepared {
            if receipts[*position].is_none() {
                receipts[*position] = Some(session.publish_one(publish, deadline).await);
            }
        }
        if !session.is_usable() || receipts.iter().any(|receipt| matches!(receipt, Some(Err(_)))) {
            self.connection.lose(&session).await;
        }
        Ok(receipts.into_iter().map(|receipt| receipt.unwrap_or_else(|| Err("it was not published".into()))).collect())
    }
}

impl Bus for Amqp {
    fn publish<'a>(&'a self, messages: &'a [Message]) -> Receiving<'a> {
        Box::pin(self.send(messages))
    }
}

impl Session {
    fn is_usable(&self) -> bool {
        self.connection.status().connected()
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(channel) if channel.status().connected() => Ok(channel),
            _ => {
                let channel = self.connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                Ok(channel)
            }
        }
    }

    /// Returns a channel for reuse. Everything published on it must have been confirmed.
    fn give_back(&self, channel: Channel) {
        if channel.status().connected() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        }
    }

    /// Checks that an exchange exists before anything is published to it, and returns the outcome if it
    /// does not. RabbitMQ answers a message for a missing exchange by closing the channel, which leaves
    /// the messages before it unconfirmed.
    async fn missing(&self, exchange: &ShortString, deadline: Instant) -> lapin::Result<Option<Outcome>> {
        let known = |exchanges: &HashSet<String>| exchange.as_str().is_empty() || exchanges.contains(exchange.as_str());
        if known(&self.exchanges()) {
            return Ok(None);
        }
        let asked = async {
            let channel = self.connection.create_channel().await?;
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let declared = channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, passive, FieldTable::default()).await;
            if declared.is_ok() {
                channel.close(200, "".into()).await?;
            }
            declared
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(())) => {
                self.exchanges().insert(exchange.to_string());
                Ok(None)
            }
            Ok(Err(error)) => fault(&error).map(|fault| Some(outcome(fault))).ok_or(error),
            Err(_) => Err(ErrorKind::MissingHeartbeatError.into()),
        }
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all messages at once; those that the server did not process get no receipt.
    async fn publish_all(&self, prepared: &[(usize, AmqpPublish<'_>)], receipts: &mut [Option<Receipt>], deadline: Instant) {
        let channel = match self.in_time(self.channel(), deadline).await {
            Ok(channel) => channel,
            Err(reason) => return prepared.iter().for_each(|(position, _)| receipts[*position] = Some(Err(reason.clone()))),
        };
        let mut pending: Vec<Pending> = Vec::with_capacity(prepared.len());
        for (position, publish) in prepared {
            match self.in_time(publish.send(&channel), deadline).await {
                Ok(confirm) => pending.push((*position, confirm)),
                Err(_) => break,
            }
        }
        let mut complete = pending.len() == prepared.len();
        for (position, confirm) in pending {
            receipts[position] = match timeout_at(deadline, confirm).await {
                Ok(Ok(confirmation)) => Some(Ok(classify(confirmation))),
                Ok(Err(error)) if is_of_channel(&error) && self.is_usable() => None,
                Ok(Err(error)) => Some(Err(error.to_string())),
                Err(_) => Some(Err("RabbitMQ did not confirm in time".into())),
            };
            complete &= matches!(receipts[position], Some(Ok(_)));
        }
        if complete {
            self.give_back(channel);
        }
    }

    /// Publishes one message on a channel of its own: if the channel is closed, the message is at fault.
    async fn publish_one(&self, publish: &AmqpPublish<'_>, deadline: Instant) -> Receipt {
        let channel = self.in_time(self.channel(), deadline).await?;
        let published = async { publish.send(&channel).await?.await };
        match timeout_at(deadline, published).await {
            Ok(Ok(confirmation)) => {
                self.give_back(channel);
                Ok(classify(confirmation))
            }
            Ok(Err(error)) => {
                self.exchanges().remove(publish.exchange.as_str());
                fault(&error).map(outcome).ok_or_else(|| error.to_string())
            }
            Err(_) => Err("RabbitMQ did not confirm in time".into()),
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = lapin::Result<T>>, deadline: Instant) -> Result<T, String> {
        match timeout_at(deadline, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("RabbitMQ did not answer in time".into()),
        }
    }
}

impl<'a> AmqpPublish<'a> {
    /// Converts a message.
    ///
    /// # Errors
    /// AMQP cannot carry the message.
    fn from_message(message: &'a Message) -> Result<Self, Outcome> {
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

    async fn send(&self, channel: &Channel) -> lapin::Result<PublisherConfirm> {
        let (exchange, key) = (self.exchange.clone(), self.key.clone());
        channel.basic_publish(exchange, key, self.options, self.body, self.properties.clone()).await
    }
}

fn short(what: &str, text: &str) -> Result<ShortString, Outcome> {
    ShortString::try_new(text).map_err(|_| reject(format!("{what} has {} bytes, but RabbitMQ takes at most 255", text.len())))
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Outcome> {
    value.parse().map_err(|_| reject(format!("option \"amqp.{name}\" cannot be {value:?}")))
}

fn classify(confirmation: Confirmation) -> Outcome {
    match confirmation {
        Confirmation::Ack(None) => Outcome::Sent,
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => reject(format!(
            "RabbitMQ returned the message: {} {}; bind a queue to exchange {:?} for key {:?}",
            returned.reply_code,
            returned.reply_text,
            returned.delivery.exchange.as_str(),
            returned.delivery.routing_key.as_str(),
        )),
        Confirmation::Nack(None) => Outcome::retry("RabbitMQ did not accept the message: a queue is full or unavailable"),
        Confirmation::NotRequested => Outcome::retry("RabbitMQ was not asked to confirm"),
    }
}

/// Returns the protocol error if it concerns one message or channel only.
fn fault(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(fault) if matches!(fault.kind(), AMQPErrorKind::Soft(_)) => Some(fault),
        _ => None,
    }
}

fn is_of_channel(error: &lapin::Error) -> bool {
    fault(error).is_some() || matches!(error.kind(), ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_))
}

fn outcome(fault: &AMQPError) -> Outcome {
    let said = fault.get_message();
    match fault.kind() {
        // The message is too large, or contradicts a property of the queue.
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
            reject(format!("RabbitMQ refuses the message: {said}"))
        }
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Outcome::retry(format!("{said}; declare it, or correct `destination`")),
        _ => Outcome::retry(format!("RabbitMQ refuses the message: {said}")),
    }
}

/// Explains a failed connection attempt.
fn refused(error: &lapin::Error, uri: &AMQPUri) -> Outage {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    match error.kind() {
        ErrorKind::ProtocolError(fault) => {
            let (said, user, vhost) = (fault.get_message(), &uri.authority.userinfo.username, &uri.vhost);
            Outage::Misconfigured { reason: format!("{host}:{port} refuses user \"{user}\" on virtual host \"{vhost}\": {said}") }
        }
        _ => unavailable(format!("{host}:{port}: {error}")),
    }
}
