//! Signal types that cannot run now: their table or their plugin is unfit. Each is tried again by itself.
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
    reason: String,
    wait: Duration,
    next: Instant,
}

impl Parked {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a signal type. Returns whether this reason is new.
    pub(super) fn put(&self, config: &SignalConfig, reason: String) -> bool {
        let mut entries = self.entries();
        let before = entries.get(config.name()).filter(|entry| entry.config == *config);
        let wait = before.map_or(Duration::from_millis(500), |entry| entry.wait * 2).min(LONGEST);
        let new = before.is_none_or(|entry| entry.reason != reason);
        entries.insert(config.name().to_owned(), Entry { config: config.clone(), reason, wait, next: Instant::now() + wait });
        new
    }

    pub(super) fn remove(&self, name: &str) {
        self.entries().remove(name);
    }

    /// Whether this signal type is parked as it is configured here.
    pub(super) fn holds(&self, config: &SignalConfig) -> bool {
        self.entries().get(config.name()).is_some_and(|entry| entry.config.clone().at(&config.place) == *config)
    }

    /// Takes the signal types that are to be tried now.
    pub(super) fn take_due(&self) -> Vec<SignalConfig> {
        let now = Instant::now();
        let take = |entry: &mut Entry| {
            entry.next = now + LONGEST;
            entry.config.clone()
        };
        self.entries().values_mut().filter(|entry| entry.next <= now).map(take).collect()
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
        self.entries().get(name).map(|entry| entry.reason.clone())
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.entries().iter().map(|(name, entry)| format!("{name}: {}", entry.reason)).collect()
    }

    pub(super) fn status(&self) -> Vec<SignalStatus> {
        let status = |entry: &Entry| SignalStatus {
            name: entry.config.name().to_owned(),
            table: entry.config.source.table.clone(),
            state: "failing",
            reason: Some(entry.reason.clone()),
            plugin: PluginStatus { path: entry.config.plugin.display().to_string(), ..PluginStatus::default() },
            ..SignalStatus::default()
        };
        self.entries().values().map(status).collect()
    }
}
