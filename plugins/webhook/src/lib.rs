//! Posts every signal to an HTTP server, signed according to Standard Webhooks.
//!
//! A redirect is never followed. `hook` builds the requests, `answer` turns responses into outcomes.

#![forbid(unsafe_code)]

mod answer;
mod hook;
mod settings;
mod sign;
mod template;

use signalbus_guest::{BulkResult, Error, Signal, http, plugin};

use hook::Hook;

/// Sends many requests concurrently, each with its own outcome; of an ordered type, one of each order key at a time.
fn send_all(signals: &[Signal]) -> BulkResult {
    let Some(first) = signals.first() else { return Ok(Vec::new()) };
    let hook = Hook::new(first)?;
    let timeout = hook.timeout(first);
    let request = |signal: &Signal| hook.request(signal, timeout).map_err(Error::reject);
    http::send_each(signals, hook.parallel(), request, answer::outcome)
}

plugin!(bulk send_all);

#[cfg(test)]
mod tests;
