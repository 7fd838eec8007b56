//! Buses: the connections that plugins publish through. The relay owns them, one of each name.
#![forbid(unsafe_code)]

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "inbox")]
mod inbox;
mod instrumented;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
mod shared_connection;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use instrumented::Instrumented;
use signalbus_core::message::{Message, Publisher};
use signalbus_core::signal::{Outage, Outcome};

/// What the configuration says of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub name: String,
    /// With the password, if there is one: not to be shown.
    url: Url,
    /// The servers that the URL names after its first, as `host:port`.
    others: Vec<String>,
    /// Certificates that are trusted beside the system's, as PEM.
    ca: Option<String>,
    /// The longest that connecting takes, and that the bus has to confirm.
    timeout: Duration,
    /// What the bus' client library is told beside; only some have that.
    options: Vec<(String, String)>,
}

/// Makes a bus, or says why the configuration can't be used.
type Maker = fn(&ConnectionConfig) -> Result<Box<dyn Bus>, String>;

/// A kind of bus: the scheme of its URLs, the feature that it is built with, and how to make it.
struct Scheme {
    name: &'static str,
    feature: &'static str,
    /// `None`: this binary was built without it.
    maker: Option<Maker>,
}

macro_rules! schemes {
    ($($name:literal: $feature:literal $module:ident::$bus:ident),* $(,)?) => {
        [$(Scheme {
            name: $name,
            feature: $feature,
            #[cfg(feature = $feature)]
            maker: Some(|config| Ok(Box::new($module::$bus::new(config)?))),
            #[cfg(not(feature = $feature))]
            maker: None,
        }),*]
    };
}

const SCHEMES: [Scheme; 12] = schemes![
    "amqp": "amqp" amqp::Amqp,
    "amqps": "amqp" amqp::Amqp,
    "nats": "nats" nats::Nats,
    "tls": "nats" nats::Nats,
    "redis": "redis" redis::Redis,
    "rediss": "redis" redis::Redis,
    "mqtt": "mqtt" mqtt::Mqtt,
    "mqtts": "mqtt" mqtt::Mqtt,
    "kafka": "kafka" kafka::Kafka,
    "kafkas": "kafka" kafka::Kafka,
    "postgres": "inbox" inbox::Inbox,
    "postgresql": "inbox" inbox::Inbox,
];

impl ConnectionConfig {
    /// A connection by its URL; `ca` is PEM text.
    ///
    /// # Errors
    /// Why the URL, or what stands beside it, can't be used; without the URL, which may hold a
    /// password.
    pub fn new(
        name: &str,
        url: &str,
        ca: Option<String>,
        timeout: Duration,
        options: Vec<(String, String)>,
    ) -> Result<Self, String> {
        let (url, others) = first_server(url);
        let url = Url::parse(&url).map_err(|error| format!("no URL: {error}"))?;
        let config = Self { name: name.to_owned(), url, others, ca, timeout, options };
        config.bus().map(|_| config)
    }

    /// The user name, or what stands in its place.
    fn user(&self) -> Option<String> {
        (!self.url.username().is_empty()).then(|| decoded(self.url.username()))
    }

    fn password(&self) -> Option<String> {
        self.url.password().map(decoded)
    }

    /// What no text may show, as it stands in the URL and as it is meant.
    fn secrets(&self) -> Vec<String> {
        let is_secret = |name: &str| name.contains("password") || name.contains("secret");
        let options = self.options.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone());
        // A user alone is a token for NATS.
        let token = self.url.username();
        let is_token = ["nats", "tls"].contains(&self.url.scheme()) && self.url.password().is_none();
        let written = self.url.password().or(is_token.then_some(token)).unwrap_or_default();
        options.chain([written.to_owned(), decoded(written)]).collect()
    }

    /// The servers as `host:port`, for a bus that is happy with any of them.
    fn servers(&self, port: u16) -> Vec<String> {
        let first = format!("{}:{}", self.url.host_str().unwrap_or("localhost"), self.url.port().unwrap_or(port));
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }

    /// The first server, as `host:port`.
    fn server(&self, port: u16) -> String {
        self.servers(port).remove(0)
    }

    /// What the URL says behind its `?` under this name.
    fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// # Errors
    /// The URL has something behind its `?` that is none of these.
    fn refuse_unknown(&self, known: &[&str]) -> Result<(), String> {
        match self.url.query_pairs().find(|(key, _)| !known.contains(&key.as_ref())) {
            Some((key, _)) => Err(format!("\"?{key}=\" is not known (known: {})", known.join(", "))),
            None => Ok(()),
        }
    }

    fn bus(&self) -> Result<Box<dyn Bus>, String> {
        #[cfg(feature = "tls")]
        tls::provide();
        let scheme = self.url.scheme();
        if !self.others.is_empty() && !["kafka", "kafkas", "nats", "tls"].contains(&scheme) {
            return Err(format!("{scheme}:// names one server, not several"));
        }
        if self.ca.is_some() && ["mqtt", "redis", "kafka"].contains(&scheme) {
            return Err(format!("`ca` is for {scheme}s://, not {scheme}://"));
        }
        match SCHEMES.iter().find(|known| known.name == scheme) {
            Some(Scheme { maker: Some(maker), .. }) => maker(self),
            Some(Scheme { feature, .. }) => Err(format!(
                "this binary was built without the bus for {scheme}://: build it with the Cargo feature \"{feature}\""
            )),
            None => {
                let known = SCHEMES.iter().filter(|known| known.maker.is_some());
                let known: Vec<String> = known.map(|known| format!("{}://", known.name)).collect();
                Err(format!("there is no bus for \"{scheme}://\" (known: {})", known.join(", ")))
            }
        }
    }
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// A URL with the first of its servers alone, and the others: `scheme://host:port,host:port/`.
fn first_server(url: &str) -> (String, Vec<String>) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    let begin = url[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let mut servers = url[begin..end].split(',').map(str::to_owned);
    let first = servers.next().unwrap_or_default();
    (format!("{}{first}{}", &url[..begin], &url[end..]), servers.collect())
}

/// Waits, for a limited time, until what connections leave behind has ended. To be called when they
/// are dropped and the process is about to exit.
pub fn end() {
    #[cfg(feature = "kafka")]
    kafka::end();
}

/// The open connections of a process; none connects before it is needed, and each ends with the last
/// plugin that may use it.
#[derive(Default)]
pub struct Buses(Mutex<HashMap<String, Open>>);

type Open = (ConnectionConfig, Weak<dyn Publisher>);

impl Buses {
    /// The connection of this name: the one that is open, unless its configuration has changed.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub fn open(&self, config: &ConnectionConfig) -> Result<Arc<dyn Publisher>, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((as_before, publisher)) = open.get(&config.name)
            && as_before == config
            && let Some(publisher) = publisher.upgrade()
        {
            return Ok(publisher);
        }
        let bus = config.bus().map_err(|fault| format!("`connections.{}`: {fault}", config.name))?;
        let publisher: Arc<dyn Publisher> = Arc::new(Instrumented::new(config, bus));
        open.insert(config.name.clone(), (config.clone(), Arc::downgrade(&publisher)));
        Ok(publisher)
    }
}

/// What a bus says of one message: its outcome, or why the connection failed before the bus had
/// confirmed it.
type Receipt = Result<Outcome, String>;

/// A future that a [`Bus`] answers with.
type Receiving<'a> = Pin<Box<dyn Future<Output = Result<Vec<Receipt>, Outage>> + Send + 'a>>;

/// One kind of bus. It connects when it is first needed, and again after a loss.
trait Bus: Send + Sync {
    /// Publishes every message, in their order, and waits for the confirmations, no longer than the
    /// connection's timeout; one receipt per message.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    fn publish<'a>(&'a self, messages: &'a [Message]) -> Receiving<'a>;
}

/// A connection that was quiet for so long may be gone without anybody having noticed.
const IDLE: Duration = Duration::from_secs(1);

/// Something that may pass.
fn unavailable(reason: impl Into<String>) -> Outage {
    Outage::Unavailable { reason: reason.into(), after: None }
}

/// A message that this kind of bus can't carry.
fn reject(reason: impl Into<String>) -> Outcome {
    Outcome::Reject { reason: reason.into() }
}

/// An option of a message, as a bus reads it.
fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Outcome> {
    value.parse().map_err(|_| reject(format!("option \"{name}\" can't be {value:?}")))
}

/// A bus whose client library is told nothing beside the URL.
fn refuse_options(bus: &str, config: &ConnectionConfig) -> Result<(), String> {
    match config.options.is_empty() {
        true => Ok(()),
        false => Err(format!("{bus} knows no `options`; what it needs stands in the URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, ca: Option<&str>, options: &[(&str, &str)]) -> Result<ConnectionConfig, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ConnectionConfig::new("b", url, ca.map(str::to_owned), Duration::from_secs(1), options)
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_secret() {
        for (url, words) in [
            ("kafka://u:hunter2@h:x", "no URL: invalid port number"),
            ("mqtt://u:hunter2@a,b", "mqtt:// names one server, not several"),
            ("rediss://u:hunter2@h", "`ca` holds no certificate"),
            ("redis://u:hunter2@h", "`ca` is for rediss://, not redis://"),
            ("tls://u:hunter2@h?tls=no", "\"?tls=\" is not known (known: credentials)"),
            ("nats://h?credentials=own", "\"?credentials=own\": write the whole path, from / on"),
            ("nats://u:hunter2@h?credentials=/own", "NATS takes a user, or a file of `credentials`, not both"),
            ("stomp://u:hunter2@h", "there is no bus for \"stomp://\" (known: amqp://, "),
        ] {
            let fault = config(url, Some(""), &[]).unwrap_err();
            assert!(fault.starts_with(words) && !fault.contains("hunter2"), "{url}: {fault}");
        }
        let fault = config("redis://h", None, &[("a", "b")]).unwrap_err();
        assert_eq!(fault, "Redis knows no `options`; what it needs stands in the URL");
    }

    #[test]
    fn tokens_and_passwords_are_secrets() {
        let secrets = |url: &str, options: &[(&str, &str)]| config(url, None, options).unwrap().secrets();
        assert_eq!(secrets("nats://to%20ken@h", &[]), ["to%20ken", "to ken"]);
        assert_eq!(secrets("mqtt://user@h", &[]), ["", ""]);
        assert_eq!(secrets("kafka://u:p@h", &[("ssl.key.password", "q"), ("linger.ms", "1")]), ["q", "p", "p"]);
    }

    #[test]
    fn a_connection_is_shared_and_ends_with_its_last_user() {
        let buses = Buses::default();
        let config = |url: &str| ConnectionConfig::new("b", url, None, Duration::from_secs(1), vec![]).unwrap();
        let first = buses.open(&config("amqp://a")).unwrap();
        assert!(Arc::ptr_eq(&first, &buses.open(&config("amqp://a")).unwrap()));
        assert!(!Arc::ptr_eq(&first, &buses.open(&config("amqp://b")).unwrap()));
        let ended = Arc::downgrade(&first);
        drop(first);
        assert!(ended.upgrade().is_none());
    }

    #[test]
    fn a_url_may_name_several_servers() {
        let (url, others) = first_server("kafka://u:p,@a:1,b:2,[::1]:3/x?y=z,");
        assert_eq!((url.as_str(), others), ("kafka://u:p,@a:1/x?y=z,", vec!["b:2".to_owned(), "[::1]:3".to_owned()]));
        for url in ["amqp://u:p@h/%2f", "nats://h", "no url", "", "a://"] {
            assert_eq!(first_server(url), (url.to_owned(), vec![]));
        }
    }
}
