//! Publishes each row as one JSON message.

#![forbid(unsafe_code)]

use signalbus_guest::{
    BulkResult, Error, Message, Outcome, Result, Signal, Value, config, log, plugin, publish,
};
use std::time::Duration;

/// Read from the settings of these names.
#[derive(serde::Deserialize)]
struct Settings {
    connection: String,
    /// Defaults to the name of the signal type.
    destination: Option<String>,
    /// The column in which a row can demand an outcome other than to be published.
    outcome_column: Option<String>,
    #[serde(skip)]
    token: Option<String>,
}

impl Settings {
    fn read() -> Result<Self> {
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

    /// The outcome that a row demands; `None` stands for a row to publish.
    fn demanded(&self, signal: &Signal) -> Result<Option<Outcome>> {
        const REASON: &str = "the row asks for it";
        const LATER: Duration = Duration::from_millis(1500);
        let Some(column) = &self.outcome_column else {
            return Ok(None);
        };
        let Some(value) = signal.value(column) else {
            let reason = "setting \"outcome_column\" names an unknown column";
            return Err(Error::misconfigured(reason));
        };
        let Value::Text(outcome) = value else {
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
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let settings = Settings::read()?;
    let Some(first) = signals.first() else {
        return Ok(Vec::new());
    };
    // An outage answers for all rows, so every row is decided before any is published.
    let mut outcomes: Vec<Option<Outcome>> = signals
        .iter()
        .map(|signal| settings.demanded(signal))
        .collect::<Result<_>>()?;
    let mut messages = Vec::new();
    for (signal, outcome) in signals.iter().zip(&mut outcomes) {
        if outcome.is_none() {
            match settings.message(signal) {
                Ok(message) => messages.push(message),
                Err(error) => *outcome = Some(Outcome::reject(error.reason())),
            }
        }
    }
    let mut answers = publish(&messages)?.into_iter();
    if !messages.is_empty() {
        let destination = settings.destination(first);
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

plugin!(bulk send_all);

#[cfg(test)]
mod tests;
