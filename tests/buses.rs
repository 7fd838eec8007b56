//! Signals on their way to real buses: the real command, and a consumer on the other side.

mod harness;

#[path = "buses/amqp.rs"]
mod amqp;
#[path = "buses/inbox.rs"]
mod inbox;
#[path = "buses/kafka.rs"]
mod kafka;
#[path = "buses/mqtt.rs"]
mod mqtt;
#[path = "buses/nats.rs"]
mod nats;
#[path = "buses/redis.rs"]
mod redis;
