//! Kafka: a message counts as sent once all in-sync replicas have it.
//!
//! Options must never weaken this (see `FIXED`). Producers are dropped in `drop_in_thread`;
//! `shared_connection` connects; `instrumented` measures and redacts.

mod drop_in_thread;

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::shared_connection::SharedConnection;
use super::{Bus, ConnectionConfig, Receipt, Receiving, at_most, outage, parsed, reject, tls};
use drop_in_thread::DropInThread;
pub(super) use drop_in_thread::end;
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to Kafka: an idempotent producer that all calls share.
pub(super) struct Kafka {
    settings: ClientConfig,
    /// Shown in messages.
    address: String,
    timeout: Duration,
    connection: SharedConnection<Session>,
}

struct Session {
    producer: DropInThread<FutureProducer<ClientEvents>>,
    state: watch::Receiver<ClientState>,
}

/// Errors that the library reports outside of deliveries.
#[derive(Clone, Default)]
struct ClientState {
    /// Why the servers refuse the login.
    refused: Option<String>,
    /// The last connection error, and when it occurred.
    fault: Option<(String, Instant)>,
}

/// Receives the library's errors.
struct ClientEvents(watch::Sender<ClientState>);

type Record<'a> = FutureRecord<'a, str, [u8]>;

impl Kafka {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        config.refuse_unknown(&["mechanism"])?;
        let address = config.servers(9092).join(",");
        let settings = settings(config, &address)?;
        settings.create_native_config().map_err(|error| match error {
            KafkaError::ClientConfig(_, told, name, _) => format!("`options`: \"{name}\": {told}"),
            error => error.to_string(),
        })?;
        Ok(Self { settings, address, timeout: config.timeout, connection: SharedConnection::new(config.timeout) })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let (sender, state) = watch::channel(ClientState::default());
        match self.settings.create_with_context(ClientEvents(sender)) {
            Ok(producer) => Ok(Session { producer: DropInThread::new(producer), state }),
            Err(error) => Err(Outage::Misconfigured { reason: format!("Kafka client: {error}") }),
        }
    }

    async fn send(&self, messages: &[Message]) -> Result<Vec<Receipt>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect()).await?;
        let deadline = Instant::now() + self.timeout;
        let mut state = session.state.clone();
        let sent = tokio::select! {
            sent = session.publish(messages, deadline) => Ok(sent),
            refused = state.wait_for(|state| state.refused.is_some()) => Err(refused.map(|state| state.refused.clone())),
        };
        match sent {
            Ok(receipts) => {
                // The library reconnects by itself.
                if !session.is_usable() {
                    self.connection.end_call(&session, &receipts, false).await;
                }
                let with_fault =
                    |receipt: Receipt| receipt.map_err(|failure| outage(self.with_fault(&session, failure.reason())));
                Ok(receipts.into_iter().map(with_fault).collect())
            }
            Err(refused) => {
                self.connection.lose(&session).await;
                let said = refused.ok().flatten().unwrap_or_default();
                let reason = format!("Kafka at {} refuses the login: correct it in the URL: {said}", self.address);
                Err(Outage::Misconfigured { reason })
            }
        }
    }

    /// Adds the last connection error to a reason.
    fn with_fault(&self, session: &Session, reason: &str) -> String {
        /// The library repeats the same error after half of this time.
        const RECENT: Duration = Duration::from_secs(60);
        let fault = session.state.borrow().fault.clone().filter(|(_, at)| at.elapsed() < RECENT);
        let fault = fault.map(|(fault, _)| format!(" ({fault})")).unwrap_or_default();
        format!("Kafka at {}: {reason}{fault}", self.address)
    }
}

impl Bus for Kafka {
    fn publish<'a>(&'a self, messages: &'a [Message]) -> Receiving<'a> {
        Box::pin(self.send(messages))
    }
}

impl ClientContext for ClientEvents {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.send_modify(|state| match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => state.refused = Some(reason.to_owned()),
            // The library reports its cause first.
            Some(Code::AllBrokersDown) if state.fault.is_some() => {}
            _ => state.fault = Some((reason.to_owned(), Instant::now())),
        });
    }

    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl Session {
    /// Returns `false` after a fatal error: an idempotent producer that could break its guarantee stops.
    fn is_usable(&self) -> bool {
        self.producer.get().is_some_and(|producer| producer.client().fatal_error().is_none())
    }

    async fn publish(&self, messages: &[Message], deadline: Instant) -> Vec<Receipt> {
        let mut pending: Vec<Result<DeliveryFuture, Receipt>> = Vec::with_capacity(messages.len());
        for message in messages {
            pending.push(match record(message) {
                Ok(record) => self.enqueue(record, deadline).await,
                Err(outcome) => Err(Ok(outcome)),
            });
        }
        let mut receipts = Vec::with_capacity(messages.len());
        for (pending, message) in pending.into_iter().zip(messages) {
            let delivered = match pending {
                Ok(pending) => delivered(pending, deadline).await,
                Err(receipt) => Err(receipt),
            };
            receipts.push(match delivered {
                // The error concerns the messages of a request together; alone, this one may pass.
                Ok(Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _))) if messages.len() > 1 => {
                    self.publish_alone(message, deadline).await
                }
                Ok(delivery) => classify(delivery, &message.destination),
                Err(receipt) => receipt,
            });
        }
        receipts
    }

    async fn publish_alone(&self, message: &Message, deadline: Instant) -> Receipt {
        let record = match record(message) {
            Ok(record) => record,
            Err(outcome) => return Ok(outcome),
        };
        let delivered = match self.enqueue(record, deadline).await {
            Ok(pending) => delivered(pending, deadline).await,
            Err(receipt) => Err(receipt),
        };
        delivered.map_or_else(|receipt| receipt, |delivery| classify(delivery, &message.destination))
    }

    async fn enqueue(&self, mut record: Record<'_>, deadline: Instant) -> Result<DeliveryFuture, Receipt> {
        const PAUSE: Duration = Duration::from_millis(20);
        let Some(producer) = self.producer.get() else { return Err(Err(outage("the producer has ended"))) };
        loop {
            match producer.send_result(record) {
                Ok(pending) => return Ok(pending),
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if Instant::now() < deadline => {
                    record = again;
                    sleep(PAUSE).await;
                }
                Err((error, record)) => return Err(refusal(&error, record.topic)),
            }
        }
    }
}

async fn delivered(pending: DeliveryFuture, deadline: Instant) -> Result<OwnedDeliveryResult, Receipt> {
    match timeout_at(deadline, pending).await {
        Ok(Ok(delivery)) => Ok(delivery),
        Ok(Err(_)) => Err(Err(outage("the producer has ended"))),
        Err(_) => Err(Err(outage("no confirmation in time"))),
    }
}

fn settings(config: &ConnectionConfig, address: &str) -> Result<ClientConfig, String> {
    /// Properties that the relay's guarantees depend on.
    const FIXED: [&str; 6] =
        ["acks", "request.required.acks", "enable.idempotence", "transactional.id", "bootstrap.servers", "metadata.broker.list"];
    let millis = u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX);
    let secure = config.url.scheme() == "kafkas";
    let protocol = match (secure, config.user()) {
        (false, None) => "plaintext",
        (false, Some(_)) => "sasl_plaintext",
        (true, None) => "ssl",
        (true, Some(_)) => "sasl_ssl",
    };
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", address)
        .set("client.id", "signalbus")
        .set("security.protocol", protocol)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The library gives up before the call does.
        .set("message.timeout.ms", (millis * 9 / 10).clamp(1, 900_000).to_string())
        .set("topic.metadata.propagation.max.ms", (millis / 3).clamp(1, 3_600_000).to_string())
        .set("reconnect.backoff.max.ms", "1000")
        // The partitioner of the Java client.
        .set("partitioner", "murmur2_random")
        // The server decides which messages are too large.
        .set("message.max.bytes", "100000000");
    if let Some(user) = config.user() {
        settings.set("sasl.username", user).set("sasl.password", config.password().unwrap_or_default());
        settings.set("sasl.mechanism", config.query("mechanism").unwrap_or_else(|| "PLAIN".to_owned()));
    }
    if let Some(ca) = &config.ca {
        settings.set("ssl.ca.pem", tls::roots(ca)?);
    }
    for (name, value) in &config.options {
        if FIXED.contains(&name.as_str()) {
            return Err(format!("`options`: \"{name}\" cannot be changed"));
        }
        settings.set(name, value);
    }
    Ok(settings)
}

/// Converts a message.
///
/// # Errors
/// Kafka cannot carry the message.
fn record(message: &Message) -> Result<Record<'_>, Outcome> {
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
    let mut record = Record::to(topic).payload(&message.body).headers(headers);
    record.key = message.key.as_deref();
    for (name, value) in &message.options {
        match name.strip_prefix("kafka.") {
            // A negative one would mean any.
            Some("partition") => record.partition = Some(parsed::<u32>(name, value)?.try_into().unwrap_or(i32::MAX)),
            Some("timestamp") => record.timestamp = Some(parsed(name, value)?),
            Some(_) => return Err(reject(format!("Kafka has no option \"{name}\""))),
            None => {}
        }
    }
    Ok(record)
}

fn classify(delivery: OwnedDeliveryResult, topic: &str) -> Receipt {
    match delivery {
        Ok(_) => Ok(Outcome::Sent),
        Err((error, _)) => refusal(&error, topic),
    }
}

fn refusal(error: &KafkaError, topic: &str) -> Receipt {
    let Some(code) = error.rdkafka_error_code() else { return Err(outage(error.to_string())) };
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Ok(Outcome::retry(format!("Kafka has no topic \"{topic}\", or no such partition of it: create it ({code})")))
        }
        Code::MessageSizeTooLarge => Ok(reject(format!("the message is larger than topic \"{topic}\" allows ({code})"))),
        Code::InvalidMessage | Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidTopic | Code::InvalidMessageSize => {
            Ok(reject(format!("Kafka refuses a message for topic \"{topic}\": {code}")))
        }
        Code::TopicAuthorizationFailed => {
            Ok(Outcome::retry(format!("Kafka does not allow this user to write to topic \"{topic}\"")))
        }
        code => Err(outage(code.to_string())),
    }
}
