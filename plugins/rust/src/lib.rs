//! Publishes each row as one JSON message, unless its column `outcome` demands something else.

#![forbid(unsafe_code)]

use signalbus_guest::{
    BulkResult, Error, Message, Outcome, Result, Signal, Value, config, log, plugin, publish,
};
use std::time::Duration;

/// Where the messages go, by the settings of those names.
#[derive(serde::Deserialize)]
struct Bus {
    connection: String,
    /// Without it, the name of the signal type.
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

    fn message(&self, signal: &Signal) -> Result<Message> {
        let destination = self.destination.as_deref().unwrap_or(signal.type_name());
        let message = Message::new(&self.connection, destination)
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
    let mut outcomes = decided(signals)?;
    let mut messages = Vec::new();
    for (signal, outcome) in signals.iter().zip(&mut outcomes) {
        if outcome.is_some() {
            continue;
        }
        match bus.message(signal) {
            Ok(message) => messages.push(message),
            Err(error) => *outcome = Some(Outcome::reject(error.reason())),
        }
    }
    let answers = publish(&messages)?;
    if let Some(Message { destination, .. }) = messages.first() {
        let signals = messages.len();
        log::info!("published", signals = signals, destination = destination);
    }
    let undecided = outcomes.iter_mut().filter(|outcome| outcome.is_none());
    for (outcome, answer) in undecided.zip(answers) {
        *outcome = Some(answer);
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// The outcomes that are known beforehand; none for the rows that are to be published.
///
/// An outage of any row concerns all of them, so that nothing is published before this is over.
fn decided(signals: &[Signal]) -> Result<Vec<Option<Outcome>>> {
    let mut held = false;
    let decide = |signal: &Signal| {
        if held {
            return Ok(Some(Outcome::retry("held back")));
        }
        let outcome = demanded(signal)?;
        held = signal.is_ordered() && matches!(outcome, Some(Outcome::Retry(_)));
        Ok(outcome)
    };
    signals.iter().map(decide).collect()
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
