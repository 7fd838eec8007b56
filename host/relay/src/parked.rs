//! Signal types that do not run yet, or cannot run now: their table or their plugin is unfit. Each is opened by itself.
//!
//! Next: `live`, which parks them and starts them again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::status::{PluginStatus, SignalStatus};
use crate::config::SignalConfig;

/// The longest time between two tries.
const LONGEST: Duration = Duration::from_secs(5);

/// The signal types that are parked, by name.
#[derive(Default)]
pub(super) struct Parked(Mutex<BTreeMap<String, Entry>>);

struct Entry {
    config: SignalConfig,
    /// Why it could not be opened; none before the first try.
    faults: Vec<String>,
    wait: Duration,
    next: Instant,
    /// Whether it is being opened.
    opening: bool,
}

impl Entry {
    fn new(config: &SignalConfig) -> Self {
        let (wait, next) = (Duration::ZERO, Instant::now());
        Self { config: config.clone(), faults: Vec::new(), wait, next, opening: false }
    }

    fn reason(&self) -> String {
        if self.faults.is_empty() { LOADING.to_owned() } else { self.faults.join("; ") }
    }
}

/// The reason of a signal type that was not opened yet.
const LOADING: &str = "it is being loaded";

impl Parked {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a signal type that is to be opened for the first time.
    pub(super) fn add(&self, config: &SignalConfig) {
        self.entries().insert(config.name().to_owned(), Entry::new(config));
    }

    /// Parks a signal type. Returns whether this reason is new.
    pub(super) fn put(&self, config: &SignalConfig, faults: Vec<String>) -> bool {
        let mut entries = self.entries();
        let before = entries.remove(config.name()).filter(|entry| entry.config == *config);
        let before = before.unwrap_or_else(|| Entry::new(config));
        let new = before.faults != faults;
        let wait = (before.wait * 2).clamp(Duration::from_millis(500), LONGEST);
        let entry = Entry { faults, wait, next: Instant::now() + wait, opening: false, ..before };
        entries.insert(config.name().to_owned(), entry);
        new
    }

    /// Notes that a signal type was not opened, for a reason that is none of its own.
    pub(super) fn put_back(&self, config: &SignalConfig) {
        if let Some(entry) = self.entries().get_mut(config.name()) {
            (entry.opening, entry.next) = (false, Instant::now() + LONGEST);
        }
    }

    /// Returns all faults in the order of the configuration, if everything is here, and was tried in vain.
    pub(super) fn all_faults(&self, signals: &[SignalConfig]) -> Option<Vec<String>> {
        let entries = self.entries();
        let faults =
            |signal: &SignalConfig| entries.get(signal.name()).map(|entry| &entry.faults).filter(|faults| !faults.is_empty());
        let all: Option<Vec<_>> = signals.iter().map(faults).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().cloned().collect())
    }

    /// Removes a signal type. Returns whether it could not be opened before.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.entries().remove(name).is_some_and(|entry| !entry.faults.is_empty())
    }

    /// Whether this signal type is parked as it is configured here.
    pub(super) fn holds(&self, config: &SignalConfig) -> bool {
        self.entries().get(config.name()).is_some_and(|entry| entry.config.clone().at(&config.place) == *config)
    }

    /// Takes the signal types that are to be opened now.
    pub(super) fn take_due(&self) -> Vec<SignalConfig> {
        let now = Instant::now();
        let take = |entry: &mut Entry| {
            entry.opening = true;
            entry.config.clone()
        };
        self.entries().values_mut().filter(|entry| entry.next <= now && !entry.opening).map(take).collect()
    }

    /// Makes all of them due.
    pub(super) fn hurry(&self) {
        self.entries().values_mut().for_each(|entry| entry.next = Instant::now());
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries().keys().cloned().collect()
    }

    /// Why a signal type is parked.
    pub(super) fn reason(&self, name: &str) -> Option<String> {
        self.entries().get(name).map(Entry::reason)
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.entries().iter().map(|(name, entry)| format!("{name}: {}", entry.reason())).collect()
    }

    pub(super) fn status(&self) -> Vec<SignalStatus> {
        let status = |entry: &Entry| SignalStatus {
            name: entry.config.name().to_owned(),
            table: entry.config.source.table.clone(),
            state: if entry.faults.is_empty() { "starting" } else { "failing" },
            reason: Some(entry.reason()),
            plugin: PluginStatus { path: entry.config.plugin.display().to_string(), ..PluginStatus::default() },
            ..SignalStatus::default()
        };
        self.entries().values().map(status).collect()
    }
}
