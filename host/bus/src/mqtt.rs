//! MQTT 5 with QoS 1: a message counts as sent once the server has acknowledged it, and never before.
//!
//! `acks` matches acknowledgements with messages; `shared_connection` connects; `instrumented` measures
//! and redacts.

mod acks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, ConnectReturnCode, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, Incoming, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::shared_connection::SharedConnection;
use super::{
    Bus, ConnectionConfig, Receipt, ReceivingRuns, Run, at_most, broken, hold_behind_failure, outage, parsed, refuse_options,
    reject, tls, unavailable,
};
use acks::{Acks, run};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to an MQTT server.
pub(super) struct Mqtt {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
    connection: SharedConnection<Session>,
}

struct Session {
    client: AsyncClient,
    acks: Arc<Acks>,
    limits: Limits,
    /// Drives the client; aborted with this session.
    task: tokio::task::JoinHandle<()>,
}

/// The limits of the server.
struct Limits {
    retained: bool,
    /// The largest packet in bytes.
    largest: usize,
}

impl Mqtt {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        refuse_options("MQTT", config)?;
        config.refuse_unknown(&[])?;
        let secure = config.url.scheme() == "mqtts";
        let port = if secure { 8883 } else { 1883 };
        let tls = if secure { Some(Arc::new(tls::client(config.ca.as_deref())?)) } else { None };
        let login = match (config.user(), config.password()) {
            (None, None) => None,
            (user, password) => Some((user.unwrap_or_default(), password.unwrap_or_default())),
        };
        Ok(Self {
            host: config.host().unwrap_or_else(|| "localhost".to_owned()),
            port: config.url.port().unwrap_or(port),
            login,
            tls,
            timeout: config.timeout,
            connection: SharedConnection::default(),
        })
    }

    fn options(&self) -> MqttOptions {
        /// Maximum number of messages in flight; the server may allow fewer.
        const MOST: u16 = 1024;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A second client with the same id would disconnect the first.
        let name = format!("signalbus-{}-{number}-{:08x}", std::process::id(), fastrand::u32(..));
        let mut options = MqttOptions::new(name, self.host.as_str(), self.port);
        options.set_keep_alive(Duration::from_secs(10)).set_clean_start(true);
        options.set_connection_timeout(self.timeout.as_secs().max(1)).set_outgoing_inflight_upper_limit(MOST);
        // Otherwise the end of a batch waits until the server has told that it has the rest: up to 40 ms.
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password);
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
        }
        options
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let (client, mut events) = AsyncClient::new(self.options(), Acks::MOST);
        let said = match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(answer))) => answer.properties,
            Ok(_) => None,
            Err(error) => return Err(self.refused(&error)),
        };
        if said.as_ref().is_some_and(|said| said.max_qos == Some(0)) {
            let reason = format!("MQTT server {}:{} does not support QoS 1, which is required", self.host, self.port);
            return Err(Outage::Misconfigured { reason });
        }
        let acks = Arc::new(Acks::default());
        let task = tokio::spawn(run(events, acks.clone()));
        Ok(Session { client, acks, limits: Limits::from_connack(said.as_ref()), task })
    }

    fn refused(&self, error: &ConnectionError) -> Outage {
        use ConnectReturnCode as Code;
        let address = format!("MQTT server {}:{}", self.host, self.port);
        let ConnectionError::ConnectionRefused(code) = error else { return unavailable(format!("{address}: {error}")) };
        match code {
            Code::BadUserNamePassword | Code::NotAuthorized | Code::Banned | Code::BadAuthenticationMethod => {
                Outage::Misconfigured { reason: format!("{address} refuses the login: correct it in the URL ({code:?})") }
            }
            Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
                Outage::Misconfigured { reason: format!("{address} does not speak MQTT 5") }
            }
            code => unavailable(format!("{address} refuses the connection: {code:?}")),
        }
    }

    /// Publishes runs, whose messages are all under way at once.
    async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let session = self.connection.get(|session| session.acks.lost().is_none(), self.connect(), deadline).await?;
        let mut pending = Vec::with_capacity(runs.len());
        for run in runs {
            let mut waiting = Vec::with_capacity(run.len());
            for message in *run {
                waiting.push(session.publish(message, deadline).await);
                // Nothing may follow what was not published.
                if waiting.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            pending.push(waiting);
        }
        let mut receipts = Vec::with_capacity(runs.len());
        for waiting in pending {
            let mut told = Vec::with_capacity(waiting.len());
            for waiting in waiting {
                told.push(match waiting {
                    Ok(waiting) => session.receipt(waiting, deadline).await,
                    Err(receipt) => receipt,
                });
            }
            hold_behind_failure(&mut told);
            receipts.push(told);
        }
        self.connection.end_call(&session, &receipts.concat(), true).await;
        Ok(receipts)
    }
}

impl Bus for Mqtt {
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send(runs, deadline))
    }
}

impl Session {
    async fn publish(&self, message: &Message, deadline: Instant) -> Result<oneshot::Receiver<Receipt>, Receipt> {
        let publish = publish(message, &self.limits).map_err(Ok)?;
        match timeout_at(deadline, self.acks.enqueue(&self.client, publish)).await {
            Ok(waiting) => waiting.map_err(|reason| Err(broken(reason))),
            Err(_) => Err(Err(outage("the MQTT server acknowledges too slowly"))),
        }
    }

    async fn receipt(&self, waiting: oneshot::Receiver<Receipt>, deadline: Instant) -> Receipt {
        match timeout_at(deadline, waiting).await {
            Ok(Ok(receipt)) => receipt,
            Ok(Err(_)) => Err(broken(self.acks.lost().unwrap_or_else(|| "the connection was lost".into()))),
            Err(_) => Err(outage("the MQTT server did not acknowledge in time")),
        }
    }
}

impl Limits {
    /// Maximum size of a packet in the protocol.
    const LARGEST: usize = 268_435_455;

    fn from_connack(said: Option<&ConnAckProperties>) -> Self {
        let largest = said.and_then(|said| said.max_packet_size).and_then(|most| usize::try_from(most).ok());
        Self {
            retained: said.and_then(|said| said.retain_available) != Some(0),
            largest: largest.map_or(Self::LARGEST, |largest| largest.min(Self::LARGEST)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Converts a message.
///
/// # Errors
/// MQTT, or this server, cannot carry the message.
fn publish(message: &Message, limits: &Limits) -> Result<Publish, Outcome> {
    let topic = message.destination.as_str();
    check("`destination`", topic)?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(reject(format!("{topic:?} is not a topic that can be published to: it is empty or has a wildcard")));
    }
    let mut user_properties = message.headers.clone();
    user_properties.extend(message.id.clone().map(|id| ("id".to_owned(), id)));
    user_properties.extend(message.key.clone().map(|key| ("key".to_owned(), key)));
    for (name, value) in &user_properties {
        check("the name of a header", name)?;
        check(&format!("user property {name:?}"), value)?;
    }
    message.content_type.iter().try_for_each(|text| check("the content type", text))?;
    let mut properties =
        PublishProperties { user_properties, content_type: message.content_type.clone(), ..PublishProperties::default() };
    let mut retain = false;
    for (name, value) in &message.options {
        match name.strip_prefix("mqtt.") {
            Some("retain") => retain = parsed(name, value)?,
            Some("expiry") => properties.message_expiry_interval = Some(parsed(name, value)?),
            Some(_) => return Err(reject(format!("MQTT has no option \"{name}\""))),
            None => {}
        }
    }
    if retain && !limits.retained {
        return Err(reject("the MQTT server does not retain messages"));
    }
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, message.body.clone(), Some(properties));
    publish.retain = retain;
    // Plus two bytes for the packet identifier.
    let (size, largest) = (publish.size() + 2, limits.largest);
    match size > largest {
        true => Err(reject(format!(
            "the MQTT server takes packets of at most {largest} bytes, not {size}: shorten the body, or raise its limit"
        ))),
        false => Ok(publish),
    }
}

/// Checks a text. Servers may answer one with control characters, or with code points that are not
/// characters, by closing the connection (MQTT 5, 1.5.4), and some do.
fn check(part: &str, text: &str) -> Result<(), Outcome> {
    at_most(usize::from(u16::MAX), "MQTT", part, text)?;
    let is_none = |letter: char| matches!(u32::from(letter), 0xfdd0..=0xfdef) || u32::from(letter) & 0xfffe == 0xfffe;
    match text.chars().find(|letter| letter.is_control() || is_none(*letter)) {
        Some(letter) if letter.is_control() => {
            Err(reject(format!("{part} contains the control character {letter:?}, which MQTT servers refuse: remove it")))
        }
        Some(letter) => Err(reject(format!("{part} contains {letter:?}, which is not a character for MQTT: remove it"))),
        None => Ok(()),
    }
}
