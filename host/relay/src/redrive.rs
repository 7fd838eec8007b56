//! Redriving: makes dead letters wait for another attempt.
//!
//! Letters of types that are not configured stay dead: nobody would send them. Next: `Outbox::redrive`.

use std::collections::BTreeMap;

use crate::config::SignalConfig;
use signalbus_outbox::{DeadLetter, Error, Outbox};
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
    let mut types: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for letter in letters {
        types.entry(&letter.signal).or_default().push(letter.id);
    }
    let mut result = Redriven::default();
    for (name, ids) in types {
        if signals.iter().all(|signal| signal.name() != name) {
            let unknown = |id: i64| format!("dead letter {id}: signal type \"{name}\" is not configured; configure it");
            result.failed.extend(ids.into_iter().map(unknown));
            continue;
        }
        let redriven = usize::try_from(outbox.redrive(&ids).await?).unwrap_or_default();
        telemetry::redriven(name, redriven);
        result.redriven += redriven;
    }
    Ok(result)
}
