//! RabbitMQ, and other AMQP 0-9-1 servers with publisher confirms.
//!
//! A message must never count as sent before its confirm has arrived. `shared_connection` connects;
//! `instrumented` measures and redacts.

mod message;
mod outcome;
mod session;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{ConnectionBuilder, ConnectionProperties};
use tokio::time::Instant;

use super::shared_connection::SharedConnection;
use super::{Bus, ConnectionConfig, Receipt, Receiving, ReceivingRuns, Run, hold_behind_failure, outage, unavailable};
use message::AmqpPublish;
use outcome::refused;
use session::Session;
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
