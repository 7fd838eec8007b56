//! Redriving: puts dead letters back into their tables, to be sent again.
//!
//! A letter that cannot be put back stays a dead letter. Next: `SignalTable::redrive`.

use std::collections::HashMap;

use crate::config::SignalConfig;
use signalbus_outbox::{DeadLetter, Error, Outbox, SignalTable};
use signalbus_telemetry as telemetry;

/// The result of redriving dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    pub redriven: usize,
    /// Why letters were not redriven, each with its number.
    pub failed: Vec<String>,
}

/// Redrives dead letters, with no attempt charged.
///
/// # Errors
/// The database cannot be reached; earlier letters have been redriven.
pub async fn redrive(outbox: &Outbox, signals: &[SignalConfig], letters: &[DeadLetter]) -> Result<Redriven, Error> {
    let mut tables: HashMap<&str, SignalTable> = HashMap::new();
    let mut result = Redriven::default();
    for letter in letters {
        let name = letter.signal.as_str();
        if !tables.contains_key(name) {
            let Some(signal) = signals.iter().find(|signal| signal.name() == name) else {
                result.failed.push(format!(
                    "dead letter {}: signal type \"{name}\" is not configured; configure it or discard the letter",
                    letter.id
                ));
                continue;
            };
            tables.insert(name, outbox.signal_table(&signal.source).await?);
        }
        match tables[name].redrive(letter.id).await {
            Ok(true) => {
                telemetry::redriven(name);
                result.redriven += 1;
            }
            // Someone else was faster.
            Ok(false) => {}
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => result.failed.push(format!("dead letter {}: {error}", letter.id)),
        }
    }
    Ok(result)
}
