//! Publishes every signal as one message, by settings alone.
//!
//! `settings` reads the settings and builds the messages, with `template` for texts and `body` for
//! bodies.

#![forbid(unsafe_code)]

mod body;
mod settings;
mod template;

use signalbus_guest::{BulkResult, Signal, plugin, publish_each};

use settings::{Maker, Settings};

fn send_all(signals: &[Signal]) -> BulkResult {
    let settings = Settings::read()?;
    let Some(first) = signals.first() else { return Ok(Vec::new()) };
    let maker = Maker::new(&settings, first)?;
    publish_each(signals, |signal| maker.message(signal))
}

plugin!(bulk send_all);

#[cfg(test)]
mod tests;
