//! Buses: the connections that plugins publish through. The relay owns them, one per name.
//!
//! Knows neither plugins nor the outbox, and never shows a password. Each bus has a module;
//! `shared_connection` opens and reopens connections, `pace` limits what is published at a time, `apart` finds messages
//! that break connections, `instrumented` measures and redacts.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(all(feature = "amqp", feature = "kafka", feature = "nats", feature = "redis", feature = "mqtt", feature = "inbox")),
    allow(dead_code, unused_imports, reason = "the adapters share it")
)]

#[cfg(feature = "amqp")]
mod amqp;
mod apart;
#[cfg(feature = "inbox")]
mod inbox;
mod instrumented;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
mod pace;
mod privileges;
#[cfg(feature = "redis")]
mod redis;
mod several;
mod shared_connection;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use percent_encoding::percent_decode_str;
use url::Url;

use instrumented::InstrumentedBus;
use several::{first_server, refuse_repeated, takes_several};
use signalbus_core::message::{Message, Publisher};
use signalbus_core::signal::{Outage, Outcome};

/// The configuration of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub name: String,
    /// May contain a password: must not be shown.
    url: Url,
    /// The further servers in the URL, as `host:port`.
    others: Vec<String>,
    /// PEM certificates to trust in addition to the system's.
    ca: Option<String>,
    /// Time limit of a call: for connecting, and for the bus to confirm its messages.
    timeout: Duration,
    /// Further properties of the client library; only some buses take them.
    options: Vec<(String, String)>,
    /// Where relative paths start.
    folder: PathBuf,
}

/// Creates a bus, or returns why the configuration cannot be used.
type Maker = fn(&ConnectionConfig) -> Result<Box<dyn Bus>, String>;

/// A kind of bus: the scheme of its URLs, its Cargo feature, and its constructor.
struct Scheme {
    name: &'static str,
    feature: &'static str,
    /// `None` if this binary was built without it.
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

const SCHEMES: [Scheme; 16] = schemes![
    "amqp": "amqp" amqp::Amqp,
    "amqps": "amqp" amqp::Amqp,
    "nats": "nats" nats::Nats,
    "tls": "nats" nats::Nats,
    "redis": "redis" redis::Redis,
    "rediss": "redis" redis::Redis,
    "redis-cluster": "redis" redis::Redis,
    "rediss-cluster": "redis" redis::Redis,
    "redis-sentinel": "redis" redis::Redis,
    "rediss-sentinel": "redis" redis::Redis,
    "mqtt": "mqtt" mqtt::Mqtt,
    "mqtts": "mqtt" mqtt::Mqtt,
    "kafka": "kafka" kafka::Kafka,
    "kafkas": "kafka" kafka::Kafka,
    "postgres": "inbox" inbox::Inbox,
    "postgresql": "inbox" inbox::Inbox,
];

impl ConnectionConfig {
    /// Parses and checks the configuration of a connection; `ca` is PEM text. Paths in `url` and `options` are
    /// relative to `folder`.
    ///
    /// # Errors
    /// The URL or another value cannot be used. The text does not contain the URL, which may contain a
    /// password.
    pub fn new(
        name: &str,
        url: &str,
        ca: Option<String>,
        timeout: Duration,
        options: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self, String> {
        refuse_repeated(url)?;
        let (url, others) = first_server(url);
        let url = Url::parse(&url).map_err(|error| format!("invalid URL: {error}"))?;
        if timeout < Duration::from_millis(100) {
            return Err("`timeout` is shorter than 100ms".into());
        }
        let config = Self { name: name.to_owned(), url, others, ca, timeout, options, folder: folder.to_owned() };
        config.refuse_ignored()?;
        config.bus().map(|_| config)
    }

    /// Returns the time limit of a call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Checks that no part of the URL would be ignored.
    fn refuse_ignored(&self) -> Result<(), String> {
        let scheme = self.url.scheme();
        for server in &self.others {
            let url = Url::parse(&format!("{scheme}://{server}")).map_err(|error| format!("server \"{server}\": {error}"))?;
            if url.host_str().is_none_or(str::is_empty) {
                return Err(format!("server \"{server}\": empty host"));
            }
        }
        if self.url.fragment().is_some() {
            return Err("the URL has a fragment, which means nothing: write `%23` for a `#` in a password".into());
        }
        if ["kafka", "kafkas", "mqtt", "mqtts", "nats", "tls"].contains(&scheme) && !["", "/"].contains(&self.url.path()) {
            return Err(format!("{scheme}:// takes no path"));
        }
        let mut names: Vec<String> = self.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the URL has parameter \"?{}=\" twice", pair[0])),
            None => Ok(()),
        }
    }

    /// Returns the user name, or the token in its place.
    fn user(&self) -> Option<String> {
        (!self.url.username().is_empty()).then(|| decoded(self.url.username()))
    }

    fn password(&self) -> Option<String> {
        self.url.password().map(decoded)
    }

    /// Returns the secrets to redact, both percent-encoded and decoded.
    fn secrets(&self) -> Vec<String> {
        let is_secret = |name: &str| name.contains("password") || name.contains("secret");
        let options = self.options.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone());
        // For NATS, a user without a password is a token.
        let token = self.url.username();
        let is_token = ["nats", "tls"].contains(&self.url.scheme()) && self.url.password().is_none();
        let written = self.url.password().or(is_token.then_some(token)).unwrap_or_default();
        let parameters = self.url.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let parameters = parameters.filter(|(name, _)| is_secret(name)).flat_map(|(_, value)| [value.to_owned(), decoded(value)]);
        options.chain(parameters).chain([written.to_owned(), decoded(written)]).collect()
    }

    /// Returns the host of the first server; an IPv6 address without its brackets.
    fn host(&self) -> Option<String> {
        let host = self.url.host_str().filter(|host| !host.is_empty())?;
        Some(decoded(host.trim_start_matches('[').trim_end_matches(']')))
    }

    /// Returns the servers as `host:port`, for a bus that can connect to any of them.
    fn servers(&self, port: u16) -> Vec<String> {
        let first = format!("{}:{}", self.url.host_str().unwrap_or("localhost"), self.url.port().unwrap_or(port));
        let others = self.others.iter().map(|server| match server.ends_with(']') || !server.contains(':') {
            true => format!("{server}:{port}"),
            false => server.clone(),
        });
        std::iter::once(first).chain(others).collect()
    }

    /// Returns the first server as `host:port`.
    fn server(&self, port: u16) -> String {
        self.servers(port).remove(0)
    }

    /// Returns why there is no TLS connection to the first server, if the URL asks for one.
    #[cfg(feature = "tls")]
    async fn explain(&self) -> Option<String> {
        let port = match self.url.scheme() {
            "amqps" => 5671,
            "kafkas" => 9092,
            "mqtts" => 8883,
            "rediss" | "rediss-cluster" => 6379,
            "rediss-sentinel" => 26379,
            // With others, TLS begins later.
            _ => return None,
        };
        // Properties of the client library may have a word in this.
        let is_known = self.options.iter().all(|(name, _)| !name.starts_with("ssl."));
        let (host, port) = (self.host().filter(|_| is_known)?, self.url.port().unwrap_or(port));
        // A type's own timeout is a quarter longer, of which a half is left for calls.
        tls::explain(&host, port, self.ca.as_deref(), self.timeout / 10).await
    }

    #[cfg(not(feature = "tls"))]
    async fn explain(&self) -> Option<String> {
        None
    }

    /// Returns a query parameter of the URL.
    fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Checks that the URL has only known query parameters.
    ///
    /// # Errors
    /// The URL has a parameter that is not in `known`.
    fn refuse_unknown(&self, known: &[&str]) -> Result<(), String> {
        match self.url.query_pairs().find(|(key, _)| !known.contains(&key.as_ref())) {
            Some((key, _)) => Err(format!("unknown parameter \"?{key}=\" (known: {})", known.join(", "))),
            None => Ok(()),
        }
    }

    fn bus(&self) -> Result<Box<dyn Bus>, String> {
        #[cfg(feature = "tls")]
        tls::provide();
        let scheme = self.url.scheme();
        if !self.others.is_empty() && !takes_several(scheme) {
            return Err(format!("{scheme}:// takes one server, not several"));
        }
        // What a scheme talks to, and how it finds that: `redis`, or `redis` and `-cluster`.
        let (kind, means) = scheme.split_at(scheme.find('-').unwrap_or(scheme.len()));
        if self.ca.is_some() && ["mqtt", "redis", "kafka"].contains(&kind) {
            return Err(format!("`ca` is for {kind}s{means}://, not {scheme}://"));
        }
        match SCHEMES.iter().find(|known| known.name == scheme) {
            Some(Scheme { maker: Some(maker), .. }) => maker(self),
            Some(Scheme { feature, .. }) => Err(format!(
                "this binary was built without the bus for {scheme}://: build it with the Cargo feature \"{feature}\""
            )),
            None => {
                let known = SCHEMES.iter().filter(|known| known.maker.is_some());
                let known: Vec<String> = known.map(|known| format!("{}://", known.name)).collect();
                Err(format!("unknown bus \"{scheme}://\" (known: {})", known.join(", ")))
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

/// Waits, for a limited time, until the threads of dropped connections have ended. To be called after
/// dropping all connections, before the process exits.
pub fn end() {
    #[cfg(feature = "kafka")]
    kafka::end();
}

/// The connections of a process. Each connects when it is first used, and is closed with the last
/// plugin that may use it.
#[derive(Default)]
pub struct Buses(Mutex<HashMap<String, Open>>);

type Open = (ConnectionConfig, Weak<dyn Publisher>);

impl Buses {
    /// Returns the connection of this name: the existing one, unless its configuration has changed.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn open(&self, config: &ConnectionConfig) -> Result<Arc<dyn Publisher>, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((previous, publisher)) = open.get(&config.name)
            && previous == config
            && let Some(publisher) = publisher.upgrade()
        {
            return Ok(publisher);
        }
        let bus = InstrumentedBus::new(config).map_err(|fault| format!("`connections.{}`: {fault}", config.name))?;
        let publisher: Arc<dyn Publisher> = Arc::new(bus);
        open.insert(config.name.clone(), (config.clone(), Arc::downgrade(&publisher)));
        Ok(publisher)
    }
}

/// The result of publishing one message: its outcome, or why the bus has not decided on it.
type Receipt = Result<Outcome, Failure>;

/// Why a bus has not decided on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// The connection broke, which the bus or one of the messages has caused.
    Broken(String),
    /// The bus takes no messages, or did not answer in time.
    Outage(String),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Self::Broken(reason) | Self::Outage(reason) => reason,
        }
    }
}

/// An outage that the bus has reported, or its silence.
fn outage(reason: impl Into<String>) -> Failure {
    Failure::Outage(reason.into())
}

/// A connection that broke.
fn broken(reason: impl Into<String>) -> Failure {
    Failure::Broken(reason.into())
}

/// The future that [`Bus::publish`] returns.
type Receiving<'a> = Pin<Box<dyn Future<Output = Result<Vec<Receipt>, Outage>> + Send + 'a>>;

/// Messages that must arrive in their order.
type Run<'a> = &'a [Message];

/// The future that [`Bus::publish_in_order`] returns.
type ReceivingRuns<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vec<Receipt>>, Outage>> + Send + 'a>>;

/// A connection to one kind of bus. It connects when it is first used, and reconnects.
///
/// Each has at least one of the two functions, of which the other one can be made.
trait Bus: Send + Sync {
    /// Publishes the messages in their order, waits for confirmations until `deadline`, and returns one
    /// receipt per message.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        Box::pin(async move {
            let runs: Vec<Run<'_>> = messages.chunks(1).collect();
            let mut receipts = self.publish_in_order(&runs, deadline).await?.into_iter();
            // A receipt that is missing must not become that of another message.
            let receipt =
                |_: &Message| receipts.next().and_then(|mut run| run.pop()).unwrap_or_else(|| Err(outage("no receipt")));
            Ok(messages.iter().map(receipt).collect())
        })
    }

    /// Publishes runs, which are independent of one another, as far as that can be done at once: returns a receipt for each
    /// of the first messages of a run. What it leaves out comes next, if these were sent. Of a run whose receipts end with a
    /// failure, nothing that follows may be published again before that.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(publish_heads(self, runs, deadline))
    }
}

/// Publishes the first message of each run: all that can be done at once with messages that the bus may refuse, if it would
/// take those that follow.
async fn publish_heads(bus: &(impl Bus + ?Sized), runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
    let messages: Vec<Message> = runs.iter().filter_map(|run| run.first().cloned()).collect();
    let mut receipts = bus.publish(&messages, deadline).await?.into_iter();
    Ok(runs.iter().map(|run| receipts.by_ref().take(run.len().min(1)).collect()).collect())
}

/// Returns whether the messages of a run have all been sent so far: the next one may follow.
fn goes_on(receipts: &[Receipt]) -> bool {
    receipts.last().is_none_or(|receipt| *receipt == Ok(Outcome::Sent))
}

/// Corrects the receipts of a run that was published as a whole: what the bus has taken behind a failure does not count.
fn hold_behind_failure(receipts: &mut [Receipt]) {
    let failed = receipts.iter().position(|receipt| *receipt != Ok(Outcome::Sent));
    let behind = receipts.iter_mut().skip(failed.map_or(usize::MAX, |failed| failed + 1));
    behind.filter(|receipt| receipt.is_ok()).for_each(|receipt| *receipt = Ok(Outcome::Held));
}

/// A connection that was idle for this long is checked before use: it may have been closed unnoticed.
const IDLE: Duration = Duration::from_secs(1);

/// An outage that may pass without an operator.
fn unavailable(reason: impl Into<String>) -> Outage {
    Outage::Unavailable { reason: reason.into(), after: None }
}

/// The outcome of a message that this kind of bus cannot carry.
fn reject(reason: impl Into<String>) -> Outcome {
    Outcome::Reject { reason: reason.into() }
}

/// Refuses a part of a message that is longer than the bus takes.
fn at_most(limit: usize, bus: &str, part: &str, text: &str) -> Result<(), Outcome> {
    match text.len() {
        length if length > limit => {
            Err(reject(format!("{part} has {length} bytes, but {bus} takes at most {limit}: shorten it")))
        }
        _ => Ok(()),
    }
}

/// Parses an option of a message.
fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Outcome> {
    value.parse().map_err(|_| reject(format!("option \"{name}\" cannot be {value:?}")))
}

/// Refuses `options`, for a bus that is configured by its URL alone.
fn refuse_options(bus: &str, config: &ConnectionConfig) -> Result<(), String> {
    match config.options.is_empty() {
        true => Ok(()),
        false => Err(format!("{bus} takes no `options`; configure it in the URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, ca: Option<&str>, options: &[(&str, &str)]) -> Result<ConnectionConfig, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ConnectionConfig::new("b", url, ca.map(str::to_owned), Duration::from_secs(1), options, Path::new("/etc"))
    }

    #[cfg(all(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
    #[test]
    fn configuration_errors_do_not_show_secrets() {
        for (url, words) in [
            ("kafka://u:hunter2@h:x", "invalid URL: invalid port number"),
            ("mqtt://u:hunter2@a,b", "mqtt:// takes one server, not several"),
            ("rediss://u:hunter2@h", "`ca` contains no certificate"),
            ("redis://u:hunter2@h", "`ca` is for rediss://, not redis://"),
            ("tls://u:hunter2@h?tls=no", "unknown parameter \"?tls=\" (known: credentials)"),
            ("kafka://h,h:x", "server \"h:x\": invalid port number"),
            ("kafka://h,", "server \"\": empty host"),
            ("kafka://u:hunter2@h/orders", "kafka:// takes no path"),
            ("rediss://u:hunter2@h#insecure", "the URL has a fragment"),
            ("tls://h?credentials=/a&credentials=/b", "the URL has parameter \"?credentials=\" twice"),
            ("nats://u:hunter2@h?credentials=/own", "NATS takes either a user or `?credentials=`, not both"),
            ("redis-cluster://u:hunter2@h", "`ca` is for rediss-cluster://, not redis-cluster://"),
            ("rediss-cluster://u:hunter2@h/3", "rediss-cluster:// takes no path: a cluster has only database 0"),
            ("redis-cluster://u:hunter2@a,redis-cluster://b", "the URL names the scheme of each server: write it once"),
            ("redis-cluster://u:hunter2@a:1,u:hunter2@b:2", "the URL names a user for each server: write it once"),
            ("redis-cluster://u:hunter2@a:1,b:x", "server \"b:x\": invalid port number"),
            ("redis-cluster://u:hunter2@a:1,", "server \"\": empty host"),
            (
                "rediss-sentinel://u:hunter2@a,b",
                "rediss-sentinel:// needs the name of the master: rediss-sentinel://host:26379/mymaster",
            ),
            ("rediss-sentinel://h/m?sentinel_pasword=hunter2", "unknown parameter \"?sentinel_pasword=\" (known: "),
            ("rediss://u:hunter2@h?replicas=two", "`?replicas=two` is not a number"),
            ("redis://u:hunter2@a,b", "redis:// takes one server, not several"),
            ("stomp://u:hunter2@h", "unknown bus \"stomp://\" (known: amqp://, "),
        ] {
            let fault = config(url, Some(""), &[]).unwrap_err();
            assert!(fault.starts_with(words) && !fault.contains("hunter2"), "{url}: {fault}");
        }
        let fault = config("redis-sentinel://h/m/x", None, &[]).unwrap_err();
        assert!(fault.contains("database"), "{fault}");
        let fault = config("redis://h", None, &[("a", "b")]).unwrap_err();
        assert_eq!(fault, "Redis takes no `options`; configure it in the URL");
    }

    #[cfg(all(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
    #[test]
    fn tokens_and_passwords_are_secrets() {
        let secrets = |url: &str, options: &[(&str, &str)]| config(url, None, options).unwrap().secrets();
        assert_eq!(secrets("nats://to%20ken@h", &[]), ["to%20ken", "to ken"]);
        assert_eq!(secrets("mqtt://user@h", &[]), ["", ""]);
        let sentinel = "redis-sentinel://u:p@a,b/m?sentinel_username=v&sentinel_password=q%20r";
        assert_eq!(secrets(sentinel, &[]), ["q%20r", "q r", "p", "p"]);
        assert_eq!(secrets("kafka://u:p@h", &[("ssl.key.password", "q"), ("linger.ms", "1")]), ["q", "p", "p"]);
    }

    #[cfg(all(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
    #[test]
    fn a_connection_is_shared_and_closed_with_its_last_user() {
        let buses = Buses::default();
        let config = |url: &str| ConnectionConfig::new("b", url, None, Duration::from_secs(1), vec![], Path::new("")).unwrap();
        let first = buses.open(&config("amqp://a")).unwrap();
        assert!(Arc::ptr_eq(&first, &buses.open(&config("amqp://a")).unwrap()));
        assert!(!Arc::ptr_eq(&first, &buses.open(&config("amqp://b")).unwrap()));
        let closed = Arc::downgrade(&first);
        drop(first);
        assert!(closed.upgrade().is_none());
    }
}
