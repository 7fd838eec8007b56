//! The generations of a signal type's plugin: one sends, the one before is kept to go back to.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::{Connections, Engine, Grants, Limits, LoadError, Plugin, Sender, Sending, Tape};
use signalbus_core::signal::{Outage, Outcome, Signal, SignalType, Verdict};
use signalbus_telemetry as telemetry;

/// What a signal type's plugin is made from, again and again.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    pub signal_type: String,
    pub path: PathBuf,
    /// `sha256:…`; no other file is accepted.
    pub digest: Option<String>,
    pub limits: Limits,
    pub grants: Grants,
    /// What it may publish through.
    pub connections: Connections,
    /// Takes down what it says, instead of the log.
    pub tape: Option<Arc<Tape>>,
}

/// The plugin of a signal type, which may be changed while it sends. A batch is sent by one
/// generation from its beginning to its end.
pub struct Generations {
    engine: Engine,
    recipe: Recipe,
    seat: Mutex<Seat>,
}

/// What became of a generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tenure {
    pub digest: String,
    /// Milliseconds since 1970.
    pub since: u64,
    pub fate: Fate,
    /// Why it was refused or replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It sends.
    Current,
    /// Another has taken its place.
    Replaced,
    /// It failed where the one before had worked.
    RolledBack,
    /// It never sent: the file can't be used.
    Refused,
}

struct Seat {
    current: Arc<Plugin>,
    /// Whether its last batch was sent; `None`: it had none yet.
    worked: Option<bool>,
    previous: Option<Arc<Plugin>>,
    trial: Option<Trial>,
    /// It went back to the generation before, and nobody has asked yet.
    rolled_back: bool,
    /// The newest last.
    history: VecDeque<Tenure>,
}

/// The first batches of a generation that took another's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    left: u32,
    /// Failed batches in a row.
    failures: u32,
}

/// Batches after which a generation is trusted.
const TRIAL: u32 = 20;
/// So many failed batches in a row end a trial.
const FAILURES: u32 = 3;
/// Generations that are remembered.
const REMEMBERED: usize = 20;

impl Generations {
    /// Loads the first generation.
    ///
    /// # Errors
    /// The file can't be used.
    pub async fn load(engine: &Engine, recipe: Recipe) -> Result<Arc<Self>, LoadError> {
        let plugin = Plugin::load(engine, &recipe).await?;
        let tenure = Tenure { digest: plugin.digest().to_owned(), since: now(), fate: Fate::Current, reason: None };
        let seat = Seat {
            current: Arc::new(plugin),
            worked: None,
            previous: None,
            trial: None,
            rolled_back: false,
            history: VecDeque::from([tenure]),
        };
        Ok(Arc::new(Self { engine: engine.clone(), recipe, seat: Mutex::new(seat) }))
    }

    pub fn path(&self) -> &Path {
        &self.recipe.path
    }

    /// The digest of the generation that sends.
    pub fn digest(&self) -> String {
        self.seat().current.digest().to_owned()
    }

    /// What became of the last generations, the newest last.
    pub fn history(&self) -> Vec<Tenure> {
        self.seat().history.iter().cloned().collect()
    }

    /// Reads the file again. If it has changed and can be used, it sends from the next batch on.
    /// `false`: it is the generation that sends already.
    ///
    /// # Errors
    /// The file can't be used; the generation before stays.
    pub async fn swap(&self) -> Result<bool, LoadError> {
        let loaded = Plugin::load(&self.engine, &self.recipe).await;
        let mut seat = self.seat();
        match loaded {
            Ok(plugin) if plugin.digest() == seat.current.digest() => Ok(false),
            Ok(plugin) => {
                telemetry::swapped(&self.recipe.signal_type, plugin.digest());
                seat.install(Arc::new(plugin));
                Ok(true)
            }
            Err(error) => {
                telemetry::swap_refused(&self.recipe.signal_type, &error.to_string());
                let digest = super::load::digest_of(self.path()).unwrap_or_default();
                seat.remember(Tenure { digest, since: now(), fate: Fate::Refused, reason: Some(error.to_string()) });
                Err(error)
            }
        }
    }

    /// Goes back to the generation before. `None`: there is none.
    pub fn roll_back(&self, reason: &str) -> Option<String> {
        self.seat().roll_back(&self.recipe.signal_type, reason)
    }

    /// Whether it went back since this was last asked.
    pub fn take_rolled_back(&self) -> bool {
        std::mem::take(&mut self.seat().rolled_back)
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_now(&self, signal_type: &SignalType, signals: &[Signal], stop: &CancellationToken) -> Verdict {
        let plugin = self.seat().current.clone();
        let verdict = plugin.send(signal_type, signals, stop).await;
        if let Some(outcome) = judged(signals.len(), &verdict) {
            // Where an operator has to act, further batches would come to the same.
            let failures = if verdict.is_err() { FAILURES } else { 1 };
            self.seat().judge(&plugin, outcome, failures, &self.recipe.signal_type);
        }
        verdict
    }
}

impl Sender for Generations {
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a> {
        Box::pin(self.send_now(signal_type, signals, stop))
    }
}

impl Seat {
    fn install(&mut self, plugin: Arc<Plugin>) {
        let since = now();
        if let Some(tenure) = self.history.iter_mut().rev().find(|tenure| tenure.fate == Fate::Current) {
            tenure.fate = Fate::Replaced;
        }
        self.remember(Tenure { digest: plugin.digest().to_owned(), since, fate: Fate::Current, reason: None });
        // One that failed is no reason to come back to it.
        let worked = self.worked.take() != Some(false);
        let replaced = std::mem::replace(&mut self.current, plugin);
        if worked || self.previous.is_none() {
            self.previous = Some(replaced);
        }
        self.trial = worked.then_some(Trial { left: TRIAL, failures: 0 });
    }

    fn remember(&mut self, tenure: Tenure) {
        self.history.push_back(tenure);
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
    }

    fn judge(&mut self, plugin: &Arc<Plugin>, outcome: Result<(), String>, failures: u32, signal_type: &str) {
        // A batch that was in flight when its generation was replaced says nothing of the new one.
        if !Arc::ptr_eq(plugin, &self.current) {
            return;
        }
        self.worked = Some(outcome.is_ok());
        let Some(trial) = &mut self.trial else { return };
        match outcome {
            Ok(()) => *trial = Trial { left: trial.left.saturating_sub(1), failures: 0 },
            Err(_) if trial.failures + failures < FAILURES => trial.failures += failures,
            Err(reason) => {
                self.roll_back(signal_type, &reason);
            }
        }
        if self.trial.is_some_and(|trial| trial.left == 0) {
            self.trial = None;
        }
    }

    fn roll_back(&mut self, signal_type: &str, reason: &str) -> Option<String> {
        let plugin = self.previous.take()?;
        let digest = plugin.digest().to_owned();
        telemetry::rolled_back(signal_type, self.current.digest(), &digest, reason);
        if let Some(tenure) = self.history.iter_mut().rev().find(|tenure| tenure.fate == Fate::Current) {
            (tenure.fate, tenure.reason) = (Fate::RolledBack, Some(reason.to_owned()));
        }
        self.remember(Tenure { digest: digest.clone(), since: now(), fate: Fate::Current, reason: None });
        (self.current, self.worked, self.trial, self.rolled_back) = (plugin, None, None, true);
        Some(digest)
    }
}

/// Whether a batch was sent, in part at least; `None`: nothing can be said, the bus was away.
fn judged(signals: usize, verdict: &Verdict) -> Option<Result<(), String>> {
    let outcomes = match verdict {
        Ok(outcomes) if outcomes.len() == signals => outcomes,
        Ok(outcomes) => return Some(Err(format!("{} outcomes for {signals} signals", outcomes.len()))),
        Err(Outage::Unavailable { .. }) => return None,
        Err(Outage::Misconfigured { reason }) => return Some(Err(reason.clone())),
    };
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Sent | Outcome::Skip)) {
        return Some(Ok(()));
    }
    outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Retry { reason, .. } | Outcome::Reject { reason } => Some(Err(reason.clone())),
        Outcome::Sent | Outcome::Skip | Outcome::Held => None,
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_sent_in_part_has_worked() {
        assert_eq!(judged(2, &Ok(vec![Outcome::retry("full"), Outcome::Sent])), Some(Ok(())));
        assert_eq!(judged(1, &Ok(vec![Outcome::Skip])), Some(Ok(())));
    }

    #[test]
    fn a_batch_of_which_nothing_was_sent_has_failed() {
        let failed = |reason: &str| Some(Err(reason.to_owned()));
        assert_eq!(judged(2, &Ok(vec![Outcome::Held, Outcome::retry("trap")])), failed("trap"));
        assert_eq!(judged(1, &Ok(vec![Outcome::Reject { reason: "no".into() }])), failed("no"));
        assert_eq!(judged(2, &Ok(vec![Outcome::Sent])), failed("1 outcomes for 2 signals"));
        assert_eq!(judged(1, &Err(Outage::Misconfigured { reason: "no url".into() })), failed("no url"));
    }

    #[test]
    fn an_outage_of_the_bus_says_nothing() {
        assert_eq!(judged(1, &Err(Outage::Unavailable { reason: "down".into(), after: None })), None);
        assert_eq!(judged(1, &Ok(vec![Outcome::Held])), None);
    }
}
