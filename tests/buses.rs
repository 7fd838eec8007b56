//! Signals on their way to real buses: the real command, and a consumer on the other side.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(all(feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
mod grants;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "inbox")]
mod inbox;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(all(feature = "amqp", feature = "inbox", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
mod order;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_cluster;
#[cfg(feature = "redis")]
mod redis_sentinel;
#[cfg(feature = "redis")]
mod runs;
