//! Buses: the connections that plugins publish through. The relay owns them, one of each name.

mod amqp;
mod link;
mod watched;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::message::{Message, Publisher};
use crate::signal::{Outage, Outcome};
use watched::Watched;

/// What the configuration says of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub name: String,
    /// With the password, if there is one: not to be shown.
    url: Url,
    /// Certificates that are trusted beside the system's, as PEM.
    ca: Option<String>,
    /// The longest that connecting takes, and that the bus has to confirm.
    timeout: Duration,
    /// What the bus' client library is told beside; only some have that.
    options: Vec<(String, String)>,
}

/// The schemes that are known, and what each is for.
const SCHEMES: [(&str, fn(&ConnectionConfig) -> Result<Box<dyn Bus>, String>); 2] =
    [("amqp", |config| Ok(Box::new(amqp::Amqp::new(config)?))), ("amqps", |config| Ok(Box::new(amqp::Amqp::new(config)?)))];

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
        let url = Url::parse(url).map_err(|error| format!("no URL: {error}"))?;
        let config = Self { name: name.to_owned(), url, ca, timeout, options };
        config.bus().map(|_| config)
    }

    /// The user name, or what stands in its place.
    fn user(&self) -> Option<String> {
        (!self.url.username().is_empty()).then(|| decoded(self.url.username()))
    }

    fn password(&self) -> Option<String> {
        self.url.password().map(decoded)
    }

    fn bus(&self) -> Result<Box<dyn Bus>, String> {
        let scheme = self.url.scheme();
        match SCHEMES.iter().find(|(known, _)| *known == scheme) {
            Some((_, bus)) => bus(self),
            None => {
                let known: Vec<String> = SCHEMES.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
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

/// The open connections of a process; none connects before it is needed.
#[derive(Default)]
pub struct Buses(Mutex<HashMap<String, (ConnectionConfig, Arc<dyn Publisher>)>>);

impl Buses {
    /// The connection of this name: the one that is open, unless its configuration has changed.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub fn open(&self, config: &ConnectionConfig) -> Result<Arc<dyn Publisher>, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((as_before, publisher)) = open.get(&config.name)
            && as_before == config
        {
            return Ok(publisher.clone());
        }
        let bus = config.bus().map_err(|fault| format!("`connections.{}`: {fault}", config.name))?;
        let publisher: Arc<dyn Publisher> = Arc::new(Watched::new(config, bus));
        open.insert(config.name.clone(), (config.clone(), publisher.clone()));
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

/// Something that may pass.
fn unavailable(reason: impl Into<String>) -> Outage {
    Outage::Unavailable { reason: reason.into(), after: None }
}

/// A message that this kind of bus can't carry.
fn reject(reason: impl Into<String>) -> Outcome {
    Outcome::Reject { reason: reason.into() }
}
