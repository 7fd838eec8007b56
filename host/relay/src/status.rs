//! The status of a running relay, as the admin listener serves it.
//!
//! Only shows: `runner` and `sample` provide the facts. Fields are public, and documented in
//! `docs/src/admin.md`.

use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;

use super::runner::{Health, SignalRunner};
use super::sample::Sample;
use signalbus_plugin::GenerationRecord;

/// The status of a running relay.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub uptime_seconds: u64,
    /// Whether every signal type makes progress or has nothing due.
    pub ready: bool,
    pub signals: Vec<SignalStatus>,
}

/// The status of a signal type.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SignalStatus {
    #[serde(rename = "type")]
    pub name: String,
    pub table: String,
    /// `running`, `paused` or `failing`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub workers: usize,
    /// Pending rows when last sampled; likewise the next four.
    pub pending: u64,
    pub oldest_age_seconds: u64,
    pub deferred_now: u64,
    pub dead_letters: u64,
    /// Rows that were sent and could not be deleted.
    pub undeleted: u64,
    pub sent: u64,
    pub skipped: u64,
    pub deferred: u64,
    pub buried: u64,
    pub fenced: u64,
    pub plugin: PluginStatus,
}

/// The status of a signal type's plugin.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PluginStatus {
    pub path: String,
    pub digest: String,
    /// Plugin generations, newest last.
    pub history: Vec<GenerationRecord>,
}

impl SignalStatus {
    pub(super) fn from_runner(runner: &SignalRunner, sample: &Sample) -> Self {
        let (state, reason) = match runner.health() {
            Health::Healthy => ("running", None),
            Health::Paused { reason } => ("paused", Some(reason)),
            Health::Waiting { reason } => ("waiting", Some(reason)),
            Health::Failing { reason } => ("failing", Some(reason)),
        };
        Self {
            name: runner.name().to_owned(),
            table: runner.config.source.table.clone(),
            state,
            reason,
            workers: runner.workers(),
            pending: sample.pending,
            oldest_age_seconds: sample.oldest().as_secs(),
            deferred_now: sample.side_counts.deferred,
            dead_letters: sample.side_counts.dead,
            undeleted: sample.side_counts.undeleted,
            sent: runner.tally.sent.load(Relaxed),
            skipped: runner.tally.skipped.load(Relaxed),
            deferred: runner.tally.deferred.load(Relaxed),
            buried: runner.tally.buried.load(Relaxed),
            fenced: runner.tally.fenced.load(Relaxed),
            plugin: PluginStatus {
                path: runner.generations.path().display().to_string(),
                digest: runner.generations.digest(),
                history: runner.generations.history(),
            },
        }
    }
}
