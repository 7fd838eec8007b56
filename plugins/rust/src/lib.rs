//! Publishes each row as one JSON message, unless its column `outcome` demands something else.

#![forbid(unsafe_code)]

use signalbus_guest::{
    BulkResult, Error, Message, Outcome, Result, Signal, Value, config, log, plugin, publish,
};
use std::time::Duration;

/// Where the messages go, read from the settings of these names.
#[derive(serde::Deserialize)]
struct Bus {
    connection: String,
    /// Defaults to the name of the signal type.
    destination: Option<String>,
    #[serde(skip)]
    token: Option<String>,
}

impl Bus {
    fn configured() -> Result<Self> {
        Ok(Self {
            token: config::secret("token"),
            ..config::parse()?
        })
    }

    fn destination<'a>(&'a self, signal: &'a Signal) -> &'a str {
        self.destination.as_deref().unwrap_or(signal.type_name())
    }

    fn message(&self, signal: &Signal) -> Result<Message> {
        let message = Message::new(&self.connection, self.destination(signal))
            .id(signal.id())
            .header("signal-type", signal.type_name())
            .json(signal)?; // all columns
        Ok(match &self.token {
            Some(token) => message.header("token", token),
            None => message,
        })
    }
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let bus = Bus::configured()?;
    let Some(first) = signals.first() else {
        return Ok(Vec::new());
    };
    // An outage answers for all rows, so every row is decided before any is published.
    let mut outcomes: Vec<Option<Outcome>> = signals.iter().map(demanded).collect::<Result<_>>()?;
    let mut messages = Vec::new();
    for (signal, outcome) in signals.iter().zip(&mut outcomes) {
        if outcome.is_none() {
            match bus.message(signal) {
                Ok(message) => messages.push(message),
                Err(error) => *outcome = Some(Outcome::reject(error.reason())),
            }
        }
    }
    let mut answers = publish(&messages)?.into_iter();
    if !messages.is_empty() {
        let destination = bus.destination(first);
        log::info!(
            "published",
            signals = messages.len(),
            destination = destination
        );
    }
    let outcomes = outcomes.into_iter();
    Ok(outcomes
        .filter_map(|outcome| outcome.or_else(|| answers.next()))
        .collect())
}

/// What the row's column `outcome` demands.
fn demanded(signal: &Signal) -> Result<Option<Outcome>> {
    const REASON: &str = "the row asks for it";
    const LATER: Duration = Duration::from_millis(1500);
    let Some(Value::Text(outcome)) = signal.value("outcome") else {
        return Ok(None);
    };
    match outcome.as_str() {
        "skip" => Ok(Some(Outcome::Skip)),
        "retry" => Ok(Some(Outcome::retry_after(LATER, REASON))),
        "reject" => Ok(Some(Outcome::reject(REASON))),
        "unavailable" => Err(Error::unavailable(REASON).after(LATER)),
        "misconfigured" => Err(Error::misconfigured(REASON)),
        "panic" => panic!("{REASON}"),
        _ => Ok(None),
    }
}

plugin!(bulk send_all);

#[cfg(test)]
mod tests;
