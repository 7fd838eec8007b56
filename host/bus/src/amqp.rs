//! RabbitMQ, and other AMQP 0-9-1 servers with publisher confirms.
//!
//! A message must never count as sent before its confirm has arrived. `shared_connection` connects;
//! `instrumented` measures and redacts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use lapin::message::BasicReturnMessage;
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
use super::{
    Bus, ConnectionConfig, Failure, Receipt, Receiving, ReceivingRuns, Run, at_most, broken, hold_behind_failure, outage, reject,
    unavailable,
};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// Maximum length of an exchange's name in bytes.
const LONGEST_EXCHANGE: usize = 127;

/// A connection to RabbitMQ; each call publishes through a channel of its own.
pub(super) struct Amqp {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    connection: SharedConnection<Session>,
}

struct Session {
    connection: lapin::Connection,
    /// How many channels were opened.
    opened: AtomicU16,
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
        Ok(Self { uri, tls, connection: SharedConnection::default() })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let name = format!("signalbus {}", env!("CARGO_PKG_VERSION"));
        let builder = lapin::DefaultConnectionBuilder::new().map_err(|error| unavailable(error.to_string()))?;
        let builder: ConnectionBuilder<_> = builder
            .with_uri(self.uri.clone())
            .with_properties(ConnectionProperties::default().with_connection_name(name.into()))
            .with_tls_config(self.tls.clone());
        match builder.connect().await {
            Ok(connection) => {
                Ok(Session { connection, opened: AtomicU16::new(0), idle: Mutex::default(), exchanges: Mutex::default() })
            }
            Err(error) => Err(refused(&error, &self.uri)),
        }
    }

    /// Returns the connection, or a new one if its channels are used up.
    async fn session(&self, deadline: Instant) -> Result<Arc<Session>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect(), deadline).await?;
        if !session.is_used_up() {
            return Ok(session);
        }
        self.connection.lose(&session).await;
        self.connection.get(Session::is_usable, self.connect(), deadline).await
    }

    /// Returns the receipts of messages for exchanges that do not exist, by exchange.
    async fn missing<'m>(&self, exchanges: BTreeSet<&'m str>, deadline: Instant) -> Result<HashMap<&'m str, Receipt>, Outage> {
        const AT_ONCE: usize = 16;
        let exchanges: Vec<&str> = exchanges.into_iter().filter(|exchange| exchange.len() <= LONGEST_EXCHANGE).collect();
        let mut missing = HashMap::new();
        for exchanges in exchanges.chunks(AT_ONCE) {
            let session = self.session(deadline).await?;
            let asked = exchanges.iter().map(|exchange| session.missing(exchange, deadline));
            for (exchange, answer) in exchanges.iter().zip(join_all(asked).await) {
                if let Some(receipt) = answer.map(|missing| missing.map(Ok)).unwrap_or_else(|failure| Some(Err(failure))) {
                    missing.insert(*exchange, receipt);
                }
            }
        }
        Ok(missing)
    }

    /// Publishes runs on one channel. What the server has not processed has no receipt yet.
    async fn publish_runs<'m>(&self, runs: &[Run<'m>], deadline: Instant) -> Result<Published<'m>, Outage> {
        if self.session(deadline).await?.connection.status().blocked() {
            return Err(unavailable("RabbitMQ is low on memory or disk, and blocks publishers"));
        }
        let messages = || runs.iter().copied().flatten();
        let missing = self.missing(messages().map(|message| message.destination.as_str()).collect(), deadline).await?;
        let session = self.session(deadline).await?;
        let mut receipts: Vec<Receipt> = vec![Ok(Outcome::Held); messages().count()];
        let (mut prepared, mut begin) = (Vec::with_capacity(receipts.len()), 0);
        for run in runs {
            for (position, message) in (begin..).zip(*run) {
                let told =
                    match (missing.get(message.destination.as_str()), AmqpPublish::from_message(message, session.frame_max())) {
                        (_, Err(outcome)) => Ok(outcome),
                        (Some(receipt), _) => receipt.clone(),
                        (None, Ok(publish)) => {
                            receipts[position] = Err(outage("it was not published"));
                            prepared.push((position, publish));
                            continue;
                        }
                    };
                receipts[position] = told;
                break;
            }
            begin += run.len();
        }
        let unprocessed = session.publish_all(&prepared, &mut receipts, deadline).await;
        let unprocessed: HashSet<usize> = unprocessed.into_iter().map(|(position, _)| *position).collect();
        let unprocessed = prepared.into_iter().filter(|(position, _)| unprocessed.contains(position)).collect();
        Ok(Published { session, receipts, unprocessed })
    }

    async fn send(&self, messages: &[Message], deadline: Instant) -> Result<Vec<Receipt>, Outage> {
        let runs: Vec<Run<'_>> = messages.chunks(1).collect();
        let Published { session, mut receipts, unprocessed } = self.publish_runs(&runs, deadline).await?;
        // A closed channel may leave more messages unconfirmed than the faulty one.
        for (position, publish) in &unprocessed {
            let Ok(session) = self.session(deadline).await else { break };
            receipts[*position] = session.publish_one(publish, deadline).await;
        }
        self.connection.end_call(&session, &receipts, session.is_usable()).await;
        Ok(receipts)
    }

    /// The same for runs, which end before the first message that the server has not processed.
    async fn send_in_order(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let Published { session, receipts, unprocessed } = self.publish_runs(runs, deadline).await?;
        let unprocessed: BTreeSet<usize> = unprocessed.into_iter().map(|(position, _)| position).collect();
        let mut begin = 0;
        let told = runs.iter().map(|run| {
            let end = begin + run.len();
            let cut = unprocessed.range(begin..end).next().copied().unwrap_or(end);
            let mut told = receipts[begin..cut].to_vec();
            hold_behind_failure(&mut told);
            begin = end;
            told
        });
        let told: Vec<Vec<Receipt>> = told.collect();
        self.connection.end_call(&session, &told.concat(), session.is_usable()).await;
        Ok(told)
    }
}

/// Messages that were published.
struct Published<'m> {
    session: Arc<Session>,
    receipts: Vec<Receipt>,
    /// Those that the server did not process, and their positions.
    unprocessed: Vec<(usize, AmqpPublish<'m>)>,
}

impl Bus for Amqp {
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        Box::pin(self.send(messages, deadline))
    }

    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send_in_order(runs, deadline))
    }
}

impl Session {
    fn is_usable(&self) -> bool {
        self.connection.status().connected()
    }

    /// Returns whether another connection should take its place: the client cannot reuse the number of a
    /// channel that the server has closed.
    fn is_used_up(&self) -> bool {
        self.opened.load(Ordering::Relaxed) >= self.connection.configuration().channel_max() / 2
    }

    /// Maximum size of a frame in bytes.
    fn frame_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    async fn open_channel(&self) -> lapin::Result<Channel> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.connection.create_channel().await
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(channel) if channel.status().connected() => Ok(channel),
            _ => {
                let channel = self.open_channel().await?;
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
    async fn missing(&self, exchange: &str, deadline: Instant) -> Result<Option<Outcome>, Failure> {
        if exchange.is_empty() || self.exchanges().contains(exchange) {
            return Ok(None);
        }
        let asked = async {
            let channel = self.open_channel().await?;
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let declared = channel.exchange_declare(exchange.into(), ExchangeKind::Direct, passive, FieldTable::default()).await;
            if declared.is_ok() {
                channel.close(200, "".into()).await?;
            }
            declared
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(())) => {
                self.exchanges().insert(exchange.to_owned());
                Ok(None)
            }
            Ok(Err(error)) => fault(&error).map(|fault| Some(outcome(fault))).ok_or_else(|| failure(&error)),
            Err(_) => Err(outage("RabbitMQ did not answer in time")),
        }
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all messages at once; returns those that the server did not process.
    async fn publish_all<'p, 'm>(
        &self,
        prepared: &'p [(usize, AmqpPublish<'m>)],
        receipts: &mut [Receipt],
        deadline: Instant,
    ) -> Vec<&'p (usize, AmqpPublish<'m>)> {
        if prepared.is_empty() {
            return Vec::new();
        }
        let channel = match self.in_time(self.channel(), deadline).await {
            Ok(channel) => channel,
            Err(failure) => {
                prepared.iter().for_each(|(position, _)| receipts[*position] = Err(failure.clone()));
                return Vec::new();
            }
        };
        let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(prepared.len());
        for (_, publish) in prepared {
            match self.in_time(publish.send(&channel), deadline).await {
                Ok(confirm) => confirms.push(confirm),
                Err(_) => break,
            }
        }
        let mut unprocessed: Vec<_> = prepared[confirms.len()..].iter().collect();
        let mut returned = Vec::new();
        for (pending, confirm) in prepared.iter().zip(confirms) {
            receipts[pending.0] = match timeout_at(deadline, confirm).await {
                Ok(Ok(confirmation)) => Ok(classify(confirmation, &mut returned)),
                Ok(Err(error)) if is_of_channel(&error) && self.is_usable() => {
                    unprocessed.push(pending);
                    continue;
                }
                Ok(Err(error)) => Err(failure(&error)),
                Err(_) => Err(outage("RabbitMQ did not confirm in time")),
            };
        }
        let complete = unprocessed.is_empty() && prepared.iter().all(|(position, _)| receipts[*position].is_ok());
        unprocessed.extend(note_returned(prepared, &returned, complete, receipts));
        if complete {
            self.give_back(channel);
        }
        unprocessed.sort_unstable_by_key(|(position, _)| *position);
        unprocessed
    }

    /// Publishes one message on a channel of its own: if the channel is closed, the message is at fault.
    async fn publish_one(&self, publish: &AmqpPublish<'_>, deadline: Instant) -> Receipt {
        let channel = self.in_time(self.channel(), deadline).await?;
        let published = async { publish.send(&channel).await?.await };
        match timeout_at(deadline, published).await {
            Ok(Ok(confirmation)) => {
                self.give_back(channel);
                let mut returned = Vec::new();
                let outcome = classify(confirmation, &mut returned);
                Ok(returned.first().map_or(outcome, unroutable))
            }
            Ok(Err(error)) => {
                self.exchanges().remove(publish.exchange.as_str());
                fault(&error).map(outcome).ok_or_else(|| failure(&error))
            }
            Err(_) => Err(outage("RabbitMQ did not confirm in time")),
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = lapin::Result<T>>, deadline: Instant) -> Result<T, Failure> {
        match timeout_at(deadline, call).await {
            Ok(answer) => answer.map_err(|error| failure(&error)),
            Err(_) => Err(outage("RabbitMQ did not answer in time")),
        }
    }
}

impl<'a> AmqpPublish<'a> {
    /// Converts a message.
    ///
    /// # Errors
    /// AMQP cannot carry the message.
    fn from_message(message: &'a Message, frame_max: usize) -> Result<Self, Outcome> {
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
    fn is(&self, returned: &BasicReturnMessage) -> bool {
        let delivery = &returned.delivery;
        delivery.properties.message_id() == self.properties.message_id()
            && delivery.exchange == self.exchange
            && delivery.routing_key == self.key
            && delivery.data == self.body
    }

    async fn send(&self, channel: &Channel) -> lapin::Result<PublisherConfirm> {
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

/// Returns the outcome of a message, unless it is returned. The client adds what was returned to any confirmation that
/// follows, not to that of the message itself.
fn classify(confirmation: Confirmation, returned: &mut Vec<BasicReturnMessage>) -> Outcome {
    match confirmation {
        Confirmation::Ack(message) => {
            returned.extend(message);
            Outcome::Sent
        }
        Confirmation::Nack(message) => {
            returned.extend(message);
            Outcome::retry("RabbitMQ did not accept the message: a queue is full or unavailable")
        }
        Confirmation::NotRequested => Outcome::retry("RabbitMQ was not asked to confirm"),
    }
}

/// Sets the outcomes of the messages that were returned. Returns those of which that is unknown: unless all were
/// confirmed, the client may not have handed out everything.
fn note_returned<'p, 'm>(
    prepared: &'p [(usize, AmqpPublish<'m>)],
    returned: &[BasicReturnMessage],
    mut complete: bool,
    receipts: &mut [Receipt],
) -> Vec<&'p (usize, AmqpPublish<'m>)> {
    let mut mandatory: Vec<_> = prepared.iter().filter(|(_, publish)| publish.options.mandatory).collect();
    for message in returned {
        match mandatory.iter().position(|(_, publish)| publish.is(message)) {
            Some(at) => receipts[mandatory.remove(at).0] = Ok(unroutable(message)),
            None => complete = false,
        }
    }
    mandatory.retain(|(position, _)| !complete && receipts[*position] == Ok(Outcome::Sent));
    mandatory
}

fn unroutable(returned: &BasicReturnMessage) -> Outcome {
    reject(format!(
        "RabbitMQ returned the message: {} {}; bind a queue to exchange {:?} for key {:?}",
        returned.reply_code,
        returned.reply_text,
        returned.delivery.exchange.as_str(),
        returned.delivery.routing_key.as_str(),
    ))
}

/// Returns the protocol error if it concerns one message or channel only.
fn fault(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(fault) if matches!(fault.kind(), AMQPErrorKind::Soft(_)) => Some(fault),
        _ => None,
    }
}

/// Tells a broken connection from a bus that takes nothing.
fn failure(error: &lapin::Error) -> Failure {
    match error.kind() {
        ErrorKind::ChannelsLimitReached => outage(error.to_string()),
        _ => broken(error.to_string()),
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
