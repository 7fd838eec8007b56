//! The metrics: the list of them all, and the functions that record them.
//!
//! Recording costs next to nothing until a recorder is installed: next, the admin listener's exporter
//! in `signalbus-relay`. A new metric is also listed in `docs/src/admin.md`, which a test checks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, counter, gauge, histogram};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric: its name, kind, labels and description.
pub const METRICS: &[(&str, Kind, &str, &str)] = &[
    ("signalbus_up", Kind::Gauge, "version", "1 while the relay runs"),
    ("signalbus_ready", Kind::Gauge, "signal", "1 if the type makes progress or has nothing due, else 0"),
    ("signalbus_pending", Kind::Gauge, "signal", "Pending rows; sampled, using at most 1% of the time"),
    ("signalbus_oldest_age_seconds", Kind::Gauge, "signal", "Lower bound on the age of the oldest pending row; sampled"),
    ("signalbus_deferred", Kind::Gauge, "signal", "Signals waiting for their next attempt; sampled"),
    ("signalbus_dead_letters", Kind::Gauge, "signal", "Dead letters; sampled"),
    ("signalbus_undeleted", Kind::Gauge, "signal", "Rows that were sent and could not be deleted; sampled"),
    ("signalbus_batches_in_flight", Kind::Gauge, "signal", "Batches claimed but not yet settled"),
    ("signalbus_claimed_total", Kind::Counter, "signal", "Claimed signals"),
    ("signalbus_sent_total", Kind::Counter, "signal", "Sent signals, whose rows were deleted"),
    ("signalbus_skipped_total", Kind::Counter, "signal", "Skipped signals (nothing to send), whose rows were deleted"),
    ("signalbus_deferred_total", Kind::Counter, "signal", "Failed attempts that will be retried"),
    ("signalbus_buried_total", Kind::Counter, "signal", "Dead-lettered signals"),
    ("signalbus_changed_total", Kind::Counter, "signal", "Rows that were replaced while they were sent, and stayed"),
    ("signalbus_undeleted_total", Kind::Counter, "signal", "Rows that were sent and could not be deleted at once"),
    ("signalbus_redriven_total", Kind::Counter, "signal", "Redriven dead letters"),
    ("signalbus_duplicates_suspected_total", Kind::Counter, "signal", "Signals that may have been sent twice"),
    (
        "signalbus_fenced_total",
        Kind::Counter,
        "signal",
        "Batches whose claim belonged to another relay by the time they were settled",
    ),
    ("signalbus_takeovers_total", Kind::Counter, "signal", "Claims taken over from a relay that died"),
    (
        "signalbus_late_commits_total",
        Kind::Counter,
        "signal",
        "Signals that appeared behind others that had already been claimed",
    ),
    ("signalbus_outages_total", Kind::Counter, "signal,kind", "Calls that a plugin ended with `unavailable` or `misconfigured`"),
    ("signalbus_batch_seconds", Kind::Histogram, "signal,stage", "Time per batch by stage: `claim`, `send`, `settle`"),
    ("signalbus_batch_signals", Kind::Histogram, "signal", "Signals per batch"),
    ("signalbus_plugin_seconds", Kind::Histogram, "signal", "Time of one plugin call, including instantiation"),
    (
        "signalbus_plugin_wait_seconds",
        Kind::Histogram,
        "signal,resource",
        "Time that sends waited for `room` for an instance, calls for a `processor` and for `publishing`, and HTTP requests for room for a `response`",
    ),
    ("signalbus_plugin_memory_bytes", Kind::Gauge, "signal", "Peak memory of an instance of the plugin"),
    (
        "signalbus_plugin_failures_total",
        Kind::Counter,
        "signal,kind",
        "Calls without an answer: `trap`, `deadline`, `memory`, `exit`, `other`",
    ),
    (
        "signalbus_plugin_denied_total",
        Kind::Counter,
        "signal,capability",
        "Requests of a plugin for something it was not granted",
    ),
    (
        "signalbus_bus_messages_total",
        Kind::Counter,
        "connection,outcome",
        "Published messages by outcome: `sent`, `retry` or `reject`",
    ),
    ("signalbus_bus_outages_total", Kind::Counter, "connection", "Lists of messages that met an outage of the bus"),
    (
        "signalbus_bus_publish_seconds",
        Kind::Histogram,
        "connection",
        "Time to publish a list of messages, including confirmations",
    ),
    ("signalbus_bus_up", Kind::Gauge, "connection", "1 while the bus confirms, 0 since an outage"),
    ("signalbus_plugin_compile_seconds", Kind::Histogram, "signal", "Time to load a component, compiled or from the cache"),
    ("signalbus_plugin_cache_hits_total", Kind::Counter, "", "Components whose compiled code was in the cache"),
    ("signalbus_plugin_cache_misses_total", Kind::Counter, "", "Components that were compiled"),
    ("signalbus_plugin_generations", Kind::Gauge, "", "Loaded plugin generations"),
    ("signalbus_plugin_swaps_total", Kind::Counter, "signal,result", "Plugin swaps by result: `done` or `refused`"),
    (
        "signalbus_plugin_rollbacks_total",
        Kind::Counter,
        "signal",
        "Generations that failed and were replaced by the previous one",
    ),
    ("signalbus_reloads_total", Kind::Counter, "result", "Configuration reloads by result: `done` or `refused`"),
    (
        "signalbus_wakeups_total",
        Kind::Counter,
        "source",
        "Wake-ups by source: `poll`, `call`, `commit`, `timer`, `more`, `sweep`",
    ),
    (
        "signalbus_database_errors_total",
        Kind::Counter,
        "kind",
        "Database errors by kind: `unreachable`, `passing` (transient), `refused`",
    ),
    ("signalbus_database_connections", Kind::Gauge, "", "Connections in use"),
    ("signalbus_database_connections_max", Kind::Gauge, "", "Maximum number of connections"),
];

fn labels(signal: &str) -> Vec<Label> {
    vec![Label::new("signal", signal.to_owned())]
}

fn with(signal: &str, key: &'static str, value: &'static str) -> Vec<Label> {
    vec![Label::new("signal", signal.to_owned()), Label::from_static_parts(key, value)]
}

/// Adds to a counter of a signal type.
pub(crate) fn count(name: &'static str, signal: &str, number: usize) {
    if number > 0 {
        counter!(name, labels(signal)).increment(number as u64);
    }
}

/// Increments a counter of a signal type that has a second label.
pub(crate) fn count_kind(name: &'static str, signal: &str, key: &'static str, kind: &'static str) {
    counter!(name, with(signal, key, kind)).increment(1);
}

/// Records a list of messages published on a connection; `outcomes` is `None` after an outage.
pub(crate) fn published(connection: &str, outcomes: Option<[(&'static str, usize); 3]>, time: Duration) {
    let of = || vec![Label::new("connection", connection.to_owned())];
    histogram!("signalbus_bus_publish_seconds", of()).record(time);
    gauge!("signalbus_bus_up", of()).set(if outcomes.is_some() { 1.0 } else { 0.0 });
    let Some(outcomes) = outcomes else {
        return counter!("signalbus_bus_outages_total", of()).increment(1);
    };
    for (outcome, number) in outcomes.into_iter().filter(|(_, number)| *number > 0) {
        messages(connection, outcome, number);
    }
}

/// Counts messages published on a connection.
pub(crate) fn messages(connection: &str, outcome: &'static str, number: usize) {
    let labels = vec![Label::new("connection", connection.to_owned()), Label::from_static_parts("outcome", outcome)];
    counter!("signalbus_bus_messages_total", labels).increment(number as u64);
}

/// Increments a counter that does not belong to a signal type.
pub(crate) fn count_global(name: &'static str, key: &'static str, kind: &'static str) {
    counter!(name, key => kind).increment(1);
}

/// Sets a counter to a total that a library has counted.
pub(crate) fn count_up_to(name: &'static str, number: usize) {
    counter!(name).absolute(number as u64);
}

/// Sets a gauge of a signal type.
#[expect(clippy::cast_precision_loss, reason = "gauges are for people")]
pub(crate) fn level(name: &'static str, signal: &str, level: u64) {
    gauge!(name, labels(signal)).set(level as f64);
}

/// Sets a gauge that does not belong to a signal type.
#[expect(clippy::cast_precision_loss, reason = "gauges are for people")]
pub(crate) fn level_global(name: &'static str, level: usize) {
    gauge!(name).set(level as f64);
}

/// Raises a gauge of a signal type to a new maximum; lower values are ignored.
pub(crate) fn high_water(name: &'static str, signal: &str, level: usize) {
    static HIGHEST: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut highest = HIGHEST.lock().unwrap_or_else(PoisonError::into_inner);
    if highest.get(signal).is_none_or(|highest| *highest < level) {
        highest.insert(signal.to_owned(), level);
        self::level(name, signal, level as u64);
    }
}

/// Increments or decrements a gauge of a signal type.
pub(crate) fn step(name: &'static str, signal: &str, up: bool) {
    let gauge = gauge!(name, labels(signal));
    if up { gauge.increment(1.0) } else { gauge.decrement(1.0) }
}

/// Records a wait for a share of a resource.
pub(crate) fn wait(signal: &str, resource: &'static str, time: Duration) {
    histogram!("signalbus_plugin_wait_seconds", with(signal, "resource", resource)).record(time);
}

/// Records the duration of a stage of a batch.
pub(crate) fn stage(signal: &str, stage: &'static str, time: Duration) {
    histogram!("signalbus_batch_seconds", with(signal, "stage", stage)).record(time);
}

/// Records a duration of a signal type.
pub(crate) fn time(name: &'static str, signal: &str, time: Duration) {
    histogram!(name, labels(signal)).record(time);
}

/// Records a size of a signal type.
#[expect(clippy::cast_precision_loss, reason = "batches are small")]
pub(crate) fn size(name: &'static str, signal: &str, size: usize) {
    histogram!(name, labels(signal)).record(size as f64);
}
