//! Kafka: a message counts as sent once all in-sync replicas have it.
//!
//! Options must never weaken this (see `reserved`). Producers are dropped in `drop_in_thread`;
//! `shared_connection` connects; `instrumented` measures and redacts.

mod drop_in_thread;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{BaseProducer, DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
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
    connection: SharedConnection<Session>,
}

struct Session {
    producer: Producer,
    /// Sends each message in a request of its own. Made when a message is refused: the server refuses a request as a
    /// whole.
    single: OnceLock<Result<Producer, KafkaError>>,
    settings: ClientConfig,
    events: ClientEvents,
    state: watch::Receiver<ClientState>,
}

type Producer = DropInThread<FutureProducer<ClientEvents>>;

/// Errors that the library reports outside of deliveries.
#[derive(Clone, Default)]
struct ClientState {
    /// Why the servers refuse the login.
    refused: Option<String>,
    /// The last connection error, and when it occurred.
    fault: Option<(String, Instant)>,
}

/// Receives the library's errors.
#[derive(Clone)]
struct ClientEvents(watch::Sender<ClientState>);

type Record<'a> = FutureRecord<'a, str, [u8]>;

impl Kafka {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        config.refuse_unknown(&["mechanism"])?;
        let address = config.servers(9092).join(",");
        if config.user().is_none() && (config.password().is_some() || config.query("mechanism").is_some()) {
            return Err("a password and `?mechanism=` need a user".into());
        }
        let settings = settings(config, &address)?;
        validate(&settings)?;
        Ok(Self { settings, address, connection: SharedConnection::default() })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let (sender, state) = watch::channel(ClientState::default());
        let (events, settings, single) = (ClientEvents(sender), self.settings.clone(), OnceLock::new());
        match producer(&settings, &events) {
            Ok(producer) => Ok(Session { producer, single, settings, events, state }),
            Err(error) => Err(Outage::Misconfigured { reason: format!("Kafka client: {error}") }),
        }
    }

    async fn send(&self, messages: &[Message], deadline: Instant) -> Result<Vec<Receipt>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect(), deadline).await?;
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
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        Box::pin(self.send(messages, deadline))
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
        let single = self.single.get().and_then(|single| single.as_ref().ok());
        let mut producers = [Some(&self.producer), single].into_iter().flatten().filter_map(DropInThread::get);
        producers.all(|producer| producer.client().fatal_error().is_none())
    }

    async fn publish(&self, messages: &[Message], deadline: Instant) -> Vec<Receipt> {
        let all: Vec<usize> = (0..messages.len()).collect();
        let mut receipts = vec![Err(outage("it was not published")); messages.len()];
        let refused = deliver(&self.producer, messages, &all, deadline, &mut receipts).await;
        if refused.is_empty() {
            return receipts;
        }
        let single = self.single.get_or_init(|| producer(self.settings.clone().set("batch.num.messages", "1"), &self.events));
        match single {
            Ok(single) => drop(deliver(single, messages, &refused, deadline, &mut receipts).await),
            Err(error) => refused.iter().for_each(|position| receipts[*position] = Err(outage(error.to_string()))),
        }
        receipts
    }
}

/// Publishes the messages at these positions, and sets their receipts. Returns the positions of those that were refused,
/// or whose request was.
async fn deliver(
    producer: &Producer,
    messages: &[Message],
    positions: &[usize],
    deadline: Instant,
    receipts: &mut [Receipt],
) -> Vec<usize> {
    let mut pending = Vec::with_capacity(positions.len());
    for &position in positions {
        match record(&messages[position]) {
            Ok(record) => pending.push((position, enqueue(producer, record, deadline).await)),
            Err(outcome) => receipts[position] = Ok(outcome),
        }
    }
    let mut refused = Vec::new();
    for (position, pending) in pending {
        let delivered = match pending {
            Ok(pending) => delivered(pending, deadline).await,
            Err(receipt) => Err(receipt),
        };
        receipts[position] = delivered.map_or_else(
            |receipt| receipt,
            |delivery| {
                if delivery.as_ref().is_err_and(|(error, _)| is_of_request(error)) {
                    refused.push(position);
                }
                classify(delivery, &messages[position].destination)
            },
        );
    }
    refused
}

async fn enqueue(producer: &Producer, mut record: Record<'_>, deadline: Instant) -> Result<DeliveryFuture, Receipt> {
    const PAUSE: Duration = Duration::from_millis(20);
    let Some(producer) = producer.get() else { return Err(Err(outage("the producer has ended"))) };
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

fn producer(settings: &ClientConfig, events: &ClientEvents) -> Result<Producer, KafkaError> {
    settings.create_with_context(events.clone()).map(DropInThread::new)
}

async fn delivered(pending: DeliveryFuture, deadline: Instant) -> Result<OwnedDeliveryResult, Receipt> {
    match timeout_at(deadline, pending).await {
        Ok(Ok(delivery)) => Ok(delivery),
        Ok(Err(_)) => Err(Err(outage("the producer has ended"))),
        Err(_) => Err(Err(outage("no confirmation in time"))),
    }
}

/// Has the client library check the settings: it opens the files that they name, and loads the mechanism.
fn validate(settings: &ClientConfig) -> Result<(), String> {
    // Without a server, it connects to none.
    let mut settings = settings.clone();
    settings.remove("bootstrap.servers");
    match settings.create::<BaseProducer>() {
        Ok(producer) => {
            drop(DropInThread::new(producer));
            Ok(())
        }
        Err(KafkaError::ClientConfig(_, told, name, _)) => Err(format!("`options`: \"{name}\": {told}")),
        Err(KafkaError::ClientCreation(told)) => Err(format!("Kafka client: {told}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns what the relay's guarantees depend on a property for; `None` if it may be changed.
fn reserved(property: &str) -> Option<&'static str> {
    Some(match property {
        "acks" | "request.required.acks" | "enable.idempotence" | "delivery.report.only.error" | "test.mock.num.brokers" => {
            "the confirmation of messages"
        }
        "transactional.id" => "messages that are not in a transaction",
        "message.timeout.ms" | "delivery.timeout.ms" => "`timeout`: change that",
        "bootstrap.servers"
        | "metadata.broker.list"
        | "security.protocol"
        | "sasl.mechanism"
        | "sasl.mechanisms"
        | "sasl.username"
        | "sasl.password" => "`url`: change that",
        "enable.ssl.certificate.verification" | "ssl.endpoint.identification.algorithm" => "the identity of the server",
        "default_topic_conf" | "interceptors" | "opaque" | "plugin.library.paths" => "the relay's own code",
        property if property.ends_with("_cb") => "the relay's own code",
        _ => return None,
    })
}

fn settings(config: &ConnectionConfig, address: &str) -> Result<ClientConfig, String> {
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
    // (Under its other name, it would be set in no order.)
    if !config.options.iter().any(|(name, _)| name == "linger.ms") {
        settings.set("queue.buffering.max.ms", "0");
    }
    if let Some(user) = config.user() {
        settings.set("sasl.username", user).set("sasl.password", config.password().unwrap_or_default());
        settings.set("sasl.mechanism", config.query("mechanism").unwrap_or_else(|| "PLAIN".to_owned()));
    }
    if let Some(ca) = &config.ca {
        settings.set("ssl.ca.pem", tls::roots(ca)?);
    }
    for (name, value) in &config.options {
        if let Some(what) = reserved(name) {
            return Err(format!("`options`: \"{name}\" cannot be changed: it is for {what}"));
        }
        // (`probe` looks for the system's certificates.)
        let is_path = name.ends_with(".location") && value != "probe";
        let value = if is_path { existing(name, &config.folder.join(value))? } else { value.clone() };
        settings.set(name, value);
    }
    Ok(settings)
}

/// Returns a path as text. The library does not name the file that it cannot read.
fn existing(name: &str, path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(path.display().to_string()),
        Err(error) => Err(format!("`options`: \"{name}\": {}: {error}", path.display())),
    }
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

fn classify(delivery: OwnedDeliveryResult, topic: &str) -> Receipt {
    match delivery {
        Ok(_) => Ok(Outcome::Sent),
        Err((error, _)) => refusal(&error, topic),
    }
}

/// Returns whether an error may concern other messages of the same request.
fn is_of_request(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::MessageSizeTooLarge
                | Code::MessageBatchTooLarge
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::InvalidRecord
                | Code::InvalidDifferentRecord
                | Code::InvalidTimestamp
        )
    )
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
