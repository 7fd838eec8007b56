//! Publishes each row as one JSON message.

#![forbid(unsafe_code)]

use signalbus_guest::{
    BulkResult, Error, Message, Result, Signal, Value, Verdict, config, log, plugin, publish_each,
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

    /// Fails if a row demands an outcome other than to be published.
    fn obey(&self, signal: &Signal) -> Result<()> {
        const REASON: &str = "the row asks for it";
        const LATER: Duration = Duration::from_millis(1500);
        let Some(column) = &self.outcome_column else {
            return Ok(());
        };
        let Some(value) = signal.value(column) else {
            let reason = "setting \"outcome_column\" names an unknown column";
            return Err(Error::misconfigured(reason));
        };
        let Value::Text(outcome) = value else {
            return Ok(());
        };
        match outcome.as_str() {
            "skip" => Err(REASON).or_skip(),
            "retry" => Err(REASON).or_retry_after(LATER),
            "reject" => Err(REASON).or_reject(),
            "unavailable" => Err(Error::unavailable(REASON).after(LATER)),
            "misconfigured" => Err(Error::misconfigured(REASON)),
            "panic" => panic!("{REASON}"),
            _ => Ok(()),
        }
    }
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let settings = Settings::read()?;
    let mut published = 0;
    // All rows are published together, in the order that the signal type may have.
    let outcomes = publish_each(signals, |signal| {
        settings.obey(signal)?;
        let message = settings.message(signal);
        let message = message.map_err(|error| Error::reject(error.reason()))?;
        published += 1;
        Ok(message)
    })?;
    if let Some(first) = signals.first().filter(|_| published > 0) {
        let destination = settings.destination(first);
        log::info!("published", signals = published, destination = destination);
    }
    Ok(outcomes)
}

plugin!(bulk send_all);

#[cfg(test)]
mod tests;
