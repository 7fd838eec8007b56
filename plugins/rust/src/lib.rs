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
    let mut decided = decided(signals)?;
    // Where order counts, the bus must accept a message before it sees the next one.
    let size = if first.is_ordered() { 1 } else { signals.len() };
    let mut outcomes = Vec::new();
    let mut published = 0;
    for (signals, decided) in signals.chunks(size).zip(decided.chunks_mut(size)) {
        let messages = messages(&bus, signals, decided);
        let answers = match publish(&messages) {
            Ok(answers) => answers,
            Err(outage) if published == 0 => return Err(outage),
            Err(_) => break,
        };
        published += messages.len();
        let mut answers = answers.into_iter();
        let chunk = decided.iter_mut().map(Option::take);
        outcomes.extend(chunk.filter_map(|outcome| outcome.or_else(|| answers.next())));
        if first.is_ordered() && is_retry(outcomes.last()) {
            break;
        }
    }
    if published > 0 {
        let destination = bus.destination(first);
        log::info!("published", signals = published, destination = destination);
    }
    outcomes.resize(signals.len(), Outcome::retry("held back"));
    Ok(outcomes)
}

/// The messages of the rows that are to be published.
fn messages(bus: &Bus, signals: &[Signal], decided: &mut [Option<Outcome>]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (signal, outcome) in signals.iter().zip(decided) {
        if outcome.is_some() {
            continue;
        }
        match bus.message(signal) {
            Ok(message) => messages.push(message),
            Err(error) => *outcome = Some(Outcome::reject(error.reason())),
        }
    }
    messages
}

/// The outcomes that are known beforehand; none for the rows that are to be published. Where order
/// counts, a row to be retried is the last one.
///
/// An outage of any row concerns all of them, so that nothing is published before this is over.
fn decided(signals: &[Signal]) -> Result<Vec<Option<Outcome>>> {
    let mut outcomes = Vec::new();
    for signal in signals {
        let outcome = demanded(signal)?;
        let last = signal.is_ordered() && is_retry(outcome.as_ref());
        outcomes.push(outcome);
        if last {
            break;
        }
    }
    Ok(outcomes)
}

fn is_retry(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Retry(_)))
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
