//! The kinds of buses, by the schemes of their URLs.
//!
//! Refuses what a bus would ignore. Next: `bus`, what a bus can do.

use super::several::takes_several;
#[cfg(feature = "tls")]
use super::tls;
use super::{Bus, ConnectionConfig};

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
            maker: Some(|config| Ok(Box::new(crate::$module::$bus::new(config)?))),
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
    pub(super) fn bus(&self) -> Result<Box<dyn Bus>, String> {
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
