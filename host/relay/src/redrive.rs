//! Redriving: makes dead letters wait for another attempt.
//!
//! Letters of types that are not configured stay dead: nobody would send them. Next: `Outbox::redrive`.

use std::collections::BTreeMap;

use crate::config::SignalConfig;
use signalbus_outbox::{DeadLetter, Error, Outbox, Selection};
use signalbus_telemetry as telemetry;

/// The result of redriving dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    pub redriven: u64,
    /// Why letters were not redriven.
    pub failed: Vec<String>,
}

/// Redrives these dead letters, with no attempt charged.
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
            let unknown = |id: i64| format!("dead letter {id}: {}", not_configured(name));
            result.failed.extend(ids.into_iter().map(unknown));
            continue;
        }
        result.add(name, outbox.redrive(&ids).await?);
    }
    Ok(result)
}

/// Redrives all dead letters that are selected, with no attempt charged.
///
/// # Errors
/// The database cannot be reached; earlier letters have been redriven.
pub async fn redrive_selected(outbox: &Outbox, signals: &[SignalConfig], selection: &Selection) -> Result<Redriven, Error> {
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    for group in outbox.dead_groups(selection).await? {
        *types.entry(group.signal).or_default() += group.count;
    }
    let mut result = Redriven::default();
    for (name, count) in types {
        if signals.iter().all(|signal| signal.name() != name) {
            result.failed.push(format!("{count} dead letters: {}", not_configured(&name)));
            continue;
        }
        let selection = Selection { signals: vec![name.clone()], ..selection.clone() };
        result.add(&name, outbox.redrive_selected(&selection).await?);
    }
    Ok(result)
}

/// Why nothing can be done about the letters of a signal type.
pub fn not_configured(signal: &str) -> String {
    format!("signal type \"{signal}\" is not configured; configure it")
}

impl Redriven {
    fn add(&mut self, signal: &str, redriven: u64) {
        telemetry::redriven(signal, usize::try_from(redriven).unwrap_or_default());
        self.redriven += redriven;
    }
}
