//! Signals on their way to real buses: the real command, the `publish` plugin, and a consumer on the
//! other side.

mod harness;

#[path = "buses/amqp.rs"]
mod amqp;
