//! Redriving: dead letters go back into their tables, to be sent again.

use std::collections::HashMap;

use crate::config::SignalConfig;
use signalbus_outbox::{DeadLetter, Error, Outbox, SignalTable};
use signalbus_telemetry as telemetry;

/// What redriving came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    pub redriven: usize,
    /// Why letters stay, each with its number.
    pub failed: Vec<String>,
}

/// Puts dead letters back, each with no attempt charged.
///
/// # Errors
/// The database can't be reached; letters before that are back.
pub async fn redrive(outbox: &Outbox, signals: &[SignalConfig], letters: &[DeadLetter]) -> Result<Redriven, Error> {
    let mut lanes: HashMap<&str, SignalTable> = HashMap::new();
    let mut told = Redriven::default();
    for letter in letters {
        let name = letter.signal.as_str();
        if !lanes.contains_key(name) {
            let Some(signal) = signals.iter().find(|signal| signal.name() == name) else {
                told.failed.push(format!(
                    "dead letter {}: there is no signal type \"{name}\" any more; configure it, or discard the letter",
                    letter.id
                ));
                continue;
            };
            lanes.insert(name, outbox.signal_table(&signal.source).await?);
        }
        match lanes[name].redrive(letter.id).await {
            Ok(true) => {
                telemetry::redriven(name);
                told.redriven += 1;
            }
            // Somebody else was faster.
            Ok(false) => {}
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => told.failed.push(format!("dead letter {}: {error}", letter.id)),
        }
    }
    Ok(told)
}
