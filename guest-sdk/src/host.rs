//! The relay's functions, called through the bindings. In native builds, `testing::host` replaces them.

use crate::bindings::ordered_producer;
use crate::bindings::single::signalbus::plugin::log::Level;
use crate::bindings::single::signalbus::plugin::{config, log, producer};
use crate::bindings::types::{Message, Outage, Outcome, RunOutcome};

pub(crate) use crate::http::exchange::exchange;

pub fn log_enabled(level: Level) -> bool {
    log::enabled(level)
}

pub fn log_emit(level: Level, message: &str, fields: &[(String, String)]) {
    log::emit(level, message, fields);
}

pub fn setting(key: &str) -> Option<String> {
    config::get(key)
}

pub fn settings() -> Vec<(String, String)> {
    config::get_all()
}

pub fn secret(key: &str) -> Option<String> {
    config::get_secret(key)
}

pub fn publish(messages: &[Message]) -> Result<Vec<Outcome>, Outage> {
    producer::publish(messages)
}

pub fn publish_in_order(runs: &[Vec<Message>]) -> Result<Vec<Vec<RunOutcome>>, Outage> {
    ordered_producer::publish_in_order(runs)
}
