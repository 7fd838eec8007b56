//! The generations of a signal type's plugin: one is active, the previous one is kept for a rollback.
//!
//! A batch is never split between generations. `load` makes a generation; `call` sends through it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::load::digest_of;
use super::{Engine, LoadError, Plugin, PluginSpec, Sender, Sending};
use signalbus_core::signal::{Outage, Outcome, Signal, SignalType, Verdict};
use signalbus_telemetry as telemetry;

/// The plugin of a signal type, which can be replaced while it sends. One generation sends the whole
/// of a batch.
pub struct Generations {
    engine: Engine,
    spec: PluginSpec,
    active: Mutex<ActivePlugin>,
    /// Held while the file is loaded: the last change wins.
    swapping: tokio::sync::Mutex<()>,
}

/// The history entry of a generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GenerationRecord {
    pub digest: String,
    /// Milliseconds since 1970.
    pub since: u64,
    #[serde(rename = "fate")]
    pub status: GenerationStatus,
    /// Why it was refused or replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationStatus {
    /// It is active.
    Current,
    /// Another generation has replaced it.
    Replaced,
    /// It failed where the previous generation had worked, or was rolled back by command.
    RolledBack,
    /// It never sent: the file cannot be used.
    Refused,
}

struct ActivePlugin {
    current: Arc<Plugin>,
    /// Whether its last batch was sent; `None` before the first.
    worked: Option<bool>,
    previous: Option<Arc<Plugin>>,
    probation: Option<Probation>,
    /// Whether a rollback has not been reported yet.
    rolled_back: bool,
    /// The newest last.
    history: VecDeque<GenerationRecord>,
}

/// The first batches of a generation that replaced another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probation {
    left: u32,
    /// Failed batches in a row.
    failures: u32,
}

/// Batches after which a generation is trusted.
const PROBATION: u32 = 20;
/// Failed batches in a row that cause a rollback during probation.
const FAILURES: u32 = 3;
/// Maximum length of the history.
const REMEMBERED: usize = 20;

impl Generations {
    /// Loads the first generation.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn load(engine: &Engine, spec: PluginSpec) -> Result<Arc<Self>, LoadError> {
        let plugin = Plugin::load(engine, &spec).await?;
        let record = GenerationRecord {
            digest: plugin.digest().to_owned(),
            since: now(),
            status: GenerationStatus::Current,
            reason: None,
        };
        let active = ActivePlugin {
            current: Arc::new(plugin),
            worked: None,
            previous: None,
            probation: None,
            rolled_back: false,
            history: VecDeque::from([record]),
        };
        Ok(Arc::new(Self { engine: engine.clone(), spec, active: Mutex::new(active), swapping: tokio::sync::Mutex::default() }))
    }

    pub fn path(&self) -> &Path {
        &self.spec.path
    }

    /// Returns the digest of the active generation.
    pub fn digest(&self) -> String {
        self.active().current.digest().to_owned()
    }

    /// Returns the history of the last generations, the newest last.
    pub fn history(&self) -> Vec<GenerationRecord> {
        self.active().history.iter().cloned().collect()
    }

    /// Reads the file again. If it has changed and can be used, it becomes the active generation with
    /// the next batch. Returns `false` if the file is unchanged.
    ///
    /// # Errors
    /// The file cannot be used; the active generation stays.
    pub async fn swap(&self) -> Result<bool, LoadError> {
        let _swapping = self.swapping.lock().await;
        let loaded = Plugin::load(&self.engine, &self.spec).await;
        let refused = if loaded.is_err() { digest_of(self.path().to_owned()).await } else { None };
        let mut active = self.active();
        match loaded {
            Ok(plugin) if plugin.digest() == active.current.digest() => Ok(false),
            Ok(plugin) => {
                telemetry::swapped(&self.spec.signal_type, plugin.digest());
                active.install(Arc::new(plugin));
                Ok(true)
            }
            Err(error) => {
                telemetry::swap_refused(&self.spec.signal_type, &error.to_string());
                active.remember(GenerationRecord {
                    digest: refused.unwrap_or_default(),
                    since: now(),
                    status: GenerationStatus::Refused,
                    reason: Some(error.to_string()),
                });
                Err(error)
            }
        }
    }

    /// Rolls back to the previous generation, and returns its digest; `None` if there is none.
    pub fn roll_back(&self, reason: &str) -> Option<String> {
        self.active().roll_back(&self.spec.signal_type, reason)
    }

    /// Returns whether a rollback happened since the last call.
    pub fn take_rolled_back(&self) -> bool {
        std::mem::take(&mut self.active().rolled_back)
    }

    /// Returns what its calls have been waiting for, if that is long.
    pub fn shortage(&self) -> Option<String> {
        self.active().current.shortage()
    }

    fn active(&self) -> MutexGuard<'_, ActivePlugin> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_now(&self, signal_type: &SignalType, signals: &[Signal], stop: &CancellationToken) -> Verdict {
        let plugin = self.active().current.clone();
        let verdict = plugin.send(signal_type, signals, stop).await;
        if let Some(outcome) = judged(signals.len(), &verdict) {
            // Where an operator has to act, further batches would fail in the same way.
            let failures = if verdict.is_err() { FAILURES } else { 1 };
            self.active().judge(&plugin, outcome, failures, &self.spec.signal_type);
        }
        verdict
    }
}

impl Sender for Generations {
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a> {
        Box::pin(self.send_now(signal_type, signals, stop))
    }
}

impl ActivePlugin {
    fn install(&mut self, plugin: Arc<Plugin>) {
        let since = now();
        if let Some(record) = self.history.iter_mut().rev().find(|record| record.status == GenerationStatus::Current) {
            record.status = GenerationStatus::Replaced;
        }
        self.remember(GenerationRecord {
            digest: plugin.digest().to_owned(),
            since,
            status: GenerationStatus::Current,
            reason: None,
        });
        // A generation that failed must not become the target of a rollback.
        let worked = self.worked.take() != Some(false);
        let replaced = std::mem::replace(&mut self.current, plugin);
        if worked || self.previous.is_none() {
            self.previous = Some(replaced);
        }
        self.probation = worked.then_some(Probation { left: PROBATION, failures: 0 });
    }

    fn remember(&mut self, record: GenerationRecord) {
        self.history.push_back(record);
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
    }

    fn judge(&mut self, plugin: &Arc<Plugin>, outcome: Result<(), String>, failures: u32, signal_type: &str) {
        // A batch that was in flight when its generation was replaced says nothing about the new one.
        if !Arc::ptr_eq(plugin, &self.current) {
            return;
        }
        self.worked = Some(outcome.is_ok());
        let Some(probation) = &mut self.probation else { return };
        match outcome {
            Ok(()) => *probation = Probation { left: probation.left.saturating_sub(1), failures: 0 },
            Err(_) if probation.failures + failures < FAILURES => probation.failures += failures,
            Err(reason) => {
                self.roll_back(signal_type, &reason);
            }
        }
        if self.probation.is_some_and(|probation| probation.left == 0) {
            self.probation = None;
        }
    }

    fn roll_back(&mut self, signal_type: &str, reason: &str) -> Option<String> {
        let plugin = self.previous.take()?;
        let digest = plugin.digest().to_owned();
        telemetry::rolled_back(signal_type, self.current.digest(), &digest, reason);
        if let Some(record) = self.history.iter_mut().rev().find(|record| record.status == GenerationStatus::Current) {
            (record.status, record.reason) = (GenerationStatus::RolledBack, Some(reason.to_owned()));
        }
        self.remember(GenerationRecord { digest: digest.clone(), since: now(), status: GenerationStatus::Current, reason: None });
        (self.current, self.worked, self.probation, self.rolled_back) = (plugin, None, None, true);
        Some(digest)
    }
}

/// Returns whether at least a part of a batch was sent; `None` if the bus was unavailable, which says
/// nothing about the plugin.
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_partly_sent_batch_has_worked() {
        assert_eq!(judged(2, &Ok(vec![Outcome::retry("full"), Outcome::Sent])), Some(Ok(())));
        assert_eq!(judged(1, &Ok(vec![Outcome::Skip])), Some(Ok(())));
    }

    #[test]
    fn a_batch_with_nothing_sent_has_failed() {
        let failed = |reason: &str| Some(Err(reason.to_owned()));
        assert_eq!(judged(2, &Ok(vec![Outcome::Held, Outcome::retry("trap")])), failed("trap"));
        assert_eq!(judged(1, &Ok(vec![Outcome::Reject { reason: "no".into() }])), failed("no"));
        assert_eq!(judged(2, &Ok(vec![Outcome::Sent])), failed("1 outcomes for 2 signals"));
        assert_eq!(judged(1, &Err(Outage::Misconfigured { reason: "no url".into() })), failed("no url"));
    }

    /// The processor time that this thread has taken.
    fn taken() -> Duration {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
    }

    /// Neither reading nor hashing keeps those waiting whose tasks this thread runs.
    #[tokio::test]
    async fn a_file_that_is_refused_is_hashed_elsewhere() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("plugin.wasm");
        std::fs::write(&path, vec![0; 16 << 20]).unwrap();
        let before = taken();
        let digest = crate::digest(&std::fs::read(&path).unwrap());
        let hashing = taken() - before;
        let before = taken();
        assert_eq!(digest_of(path).await.unwrap(), digest);
        let here = taken() - before;
        assert!(here < hashing / 4, "it took {here:?} of this thread, and hashing takes {hashing:?}");
    }

    #[test]
    fn a_bus_outage_does_not_count() {
        assert_eq!(judged(1, &Err(Outage::Unavailable { reason: "down".into(), after: None })), None);
        assert_eq!(judged(1, &Ok(vec![Outcome::Held])), None);
    }
}
