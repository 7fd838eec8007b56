//! The metrics: their names, and where each is counted. Free while nobody has asked for them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, counter, gauge, histogram};

/// What kind of figure a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric: its name, its kind, its labels, and what it tells.
pub const METRICS: &[(&str, Kind, &str, &str)] = &[
    ("signalbus_up", Kind::Gauge, "version", "1 while the relay runs"),
    ("signalbus_ready", Kind::Gauge, "signal", "1 while the type makes progress or has nothing due"),
    ("signalbus_pending", Kind::Gauge, "signal", "Rows that wait; sampled, at most a hundredth of the time goes into it"),
    ("signalbus_oldest_age_seconds", Kind::Gauge, "signal", "How long the first waiting row has been first, at least; sampled"),
    ("signalbus_deferred", Kind::Gauge, "signal", "Signals that wait for their next attempt; sampled"),
    ("signalbus_dead_letters", Kind::Gauge, "signal", "Dead letters; sampled"),
    ("signalbus_batches_in_flight", Kind::Gauge, "signal", "Batches that are claimed and not settled"),
    ("signalbus_claimed_total", Kind::Counter, "signal", "Signals that were claimed"),
    ("signalbus_sent_total", Kind::Counter, "signal", "Signals that were sent, their rows deleted"),
    ("signalbus_skipped_total", Kind::Counter, "signal", "Signals with nothing to send, their rows deleted"),
    ("signalbus_deferred_total", Kind::Counter, "signal", "Attempts that failed and will be made again"),
    ("signalbus_buried_total", Kind::Counter, "signal", "Signals that became dead letters"),
    ("signalbus_redriven_total", Kind::Counter, "signal", "Dead letters that were put back"),
    ("signalbus_duplicates_suspected_total", Kind::Counter, "signal", "Signals that may have been sent twice"),
    ("signalbus_fenced_total", Kind::Counter, "signal", "Batches whose claim was another relay's when they were to be settled"),
    ("signalbus_takeovers_total", Kind::Counter, "signal", "Claims taken over from a relay that died"),
    ("signalbus_late_commits_total", Kind::Counter, "signal", "Signals that appeared behind others that were claimed already"),
    ("signalbus_outages_total", Kind::Counter, "signal,kind", "Calls that a plugin ended with `unavailable` or `misconfigured`"),
    ("signalbus_batch_seconds", Kind::Histogram, "signal,stage", "Time of a batch by stage: `claim`, `send`, `settle`"),
    ("signalbus_batch_signals", Kind::Histogram, "signal", "Signals of a batch"),
    ("signalbus_plugin_seconds", Kind::Histogram, "signal", "Time of one plugin call, instantiation included"),
    ("signalbus_plugin_memory_bytes", Kind::Gauge, "signal", "The most memory that an instance of the plugin has had"),
    (
        "signalbus_plugin_failures_total",
        Kind::Counter,
        "signal,kind",
        "Calls without an answer: `trap`, `deadline`, `memory`, `exit`, `other`",
    ),
    ("signalbus_plugin_denied_total", Kind::Counter, "signal,capability", "What a plugin asked for and was not granted"),
    (
        "signalbus_bus_messages_total",
        Kind::Counter,
        "connection,outcome",
        "Messages that were published: `sent`, `retry` or `reject`",
    ),
    ("signalbus_bus_outages_total", Kind::Counter, "connection", "Lists of messages that met an outage of the bus"),
    (
        "signalbus_bus_publish_seconds",
        Kind::Histogram,
        "connection",
        "Time to publish a list of messages, confirmations included",
    ),
    ("signalbus_bus_up", Kind::Gauge, "connection", "1 while the bus confirms, 0 since an outage"),
    ("signalbus_plugin_compile_seconds", Kind::Histogram, "signal", "Time to load a component, compiled or from the cache"),
    ("signalbus_plugin_cache_hits_total", Kind::Counter, "", "Components whose compiled code was in the cache"),
    ("signalbus_plugin_cache_misses_total", Kind::Counter, "", "Components that were compiled"),
    ("signalbus_plugin_generations", Kind::Gauge, "", "Loaded generations of plugins"),
    ("signalbus_plugin_swaps_total", Kind::Counter, "signal,result", "Changed plugins: `done` or `refused`"),
    ("signalbus_plugin_rollbacks_total", Kind::Counter, "signal", "Generations that failed and were replaced by the one before"),
    ("signalbus_reloads_total", Kind::Counter, "result", "Times the configuration was read again: `done` or `refused`"),
    (
        "signalbus_wakeups_total",
        Kind::Counter,
        "source",
        "Reasons to look for signals: `poll`, `call`, `commit`, `timer`, `more`",
    ),
    (
        "signalbus_database_errors_total",
        Kind::Counter,
        "kind",
        "What the database refused or could not be asked: `unreachable`, `passing`, `refused`",
    ),
    ("signalbus_database_connections", Kind::Gauge, "", "Connections in use"),
    ("signalbus_database_connections_max", Kind::Gauge, "", "Connections that may be in use"),
];

fn labels(signal: &str) -> Vec<Label> {
    vec![Label::new("signal", signal.to_owned())]
}

fn with(signal: &str, key: &'static str, value: &'static str) -> Vec<Label> {
    vec![Label::new("signal", signal.to_owned()), Label::from_static_parts(key, value)]
}

/// Counts something that happened to a signal type.
pub(crate) fn count(name: &'static str, signal: &str, number: usize) {
    if number > 0 {
        counter!(name, labels(signal)).increment(number as u64);
    }
}

/// Counts something of a kind.
pub(crate) fn count_kind(name: &'static str, signal: &str, key: &'static str, kind: &'static str) {
    counter!(name, with(signal, key, kind)).increment(1);
}

/// What happened to a list of messages on a connection; `None`: it met an outage.
pub(crate) fn published(connection: &str, outcomes: Option<[(&'static str, usize); 3]>, time: Duration) {
    let of = || vec![Label::new("connection", connection.to_owned())];
    histogram!("signalbus_bus_publish_seconds", of()).record(time);
    gauge!("signalbus_bus_up", of()).set(if outcomes.is_some() { 1.0 } else { 0.0 });
    let Some(outcomes) = outcomes else {
        return counter!("signalbus_bus_outages_total", of()).increment(1);
    };
    for (outcome, number) in outcomes.into_iter().filter(|(_, number)| *number > 0) {
        let labels = vec![Label::new("connection", connection.to_owned()), Label::from_static_parts("outcome", outcome)];
        counter!("signalbus_bus_messages_total", labels).increment(number as u64);
    }
}

/// Counts something that is no signal type's.
pub(crate) fn count_of(name: &'static str, key: &'static str, kind: &'static str) {
    counter!(name, key => kind).increment(1);
}

/// Counts what a library has counted.
pub(crate) fn count_up_to(name: &'static str, number: usize) {
    counter!(name).absolute(number as u64);
}

/// Tells how much there is of something now.
#[expect(clippy::cast_precision_loss, reason = "gauges are for people")]
pub(crate) fn level(name: &'static str, signal: &str, level: u64) {
    gauge!(name, labels(signal)).set(level as f64);
}

/// The same, of what is no signal type's.
#[expect(clippy::cast_precision_loss, reason = "gauges are for people")]
pub(crate) fn level_of(name: &'static str, level: usize) {
    gauge!(name).set(level as f64);
}

/// Tells a level that was never higher.
pub(crate) fn high_water(name: &'static str, signal: &str, level: usize) {
    static HIGHEST: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut highest = HIGHEST.lock().unwrap_or_else(PoisonError::into_inner);
    if highest.get(signal).is_none_or(|highest| *highest < level) {
        highest.insert(signal.to_owned(), level);
        self::level(name, signal, level as u64);
    }
}

/// One more or one less of something.
pub(crate) fn step(name: &'static str, signal: &str, up: bool) {
    let gauge = gauge!(name, labels(signal));
    if up { gauge.increment(1.0) } else { gauge.decrement(1.0) }
}

/// How long a stage of a batch took.
pub(crate) fn stage(signal: &str, stage: &'static str, time: Duration) {
    histogram!("signalbus_batch_seconds", with(signal, "stage", stage)).record(time);
}

/// How long something took.
pub(crate) fn time(name: &'static str, signal: &str, time: Duration) {
    histogram!(name, labels(signal)).record(time);
}

/// How many there were of something.
#[expect(clippy::cast_precision_loss, reason = "batches are small")]
pub(crate) fn size(name: &'static str, signal: &str, size: usize) {
    histogram!(name, labels(signal)).record(size as f64);
}
