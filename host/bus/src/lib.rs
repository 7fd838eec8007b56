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
mod bus;
mod connection_config;
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
mod scheme;
mod several;
mod shared_connection;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bus::{
    Bus, Failure, IDLE, Receipt, Receiving, ReceivingRuns, Run, at_most, broken, goes_on, hold_behind_failure, outage, parsed,
    publish_heads, refuse_options, reject, unavailable,
};
use instrumented::InstrumentedBus;
use signalbus_core::message::Publisher;

pub use connection_config::ConnectionConfig;

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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
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
