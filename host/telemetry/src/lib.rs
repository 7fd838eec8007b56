//! Log events and metrics: every message that the relay logs and every figure that it counts.
//!
//! A message is constant, and its facts are fields; nothing here may log a secret or decide anything.
//! Next: [`meters`], the list of metrics. `docs/src/logs.md` lists the events.
#![forbid(unsafe_code)]

pub mod meters;

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use signalbus_core::settlement::Settlement;
use signalbus_core::signal::{Outage, Outcome, Signal};
use signalbus_core::text;

/// The target of every event but those of plugins.
const TARGET: &str = "signalbus";

/// Returns whether to log a condition that may last for hours: once, and then at most once a minute.
fn should_log(condition: &str) -> bool {
    const INTERVAL: Duration = Duration::from_secs(60);
    static LOGGED: Mutex<Option<HashMap<String, Instant>>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let logged = logged.get_or_insert_default();
    logged.retain(|_, at| at.elapsed() < INTERVAL);
    if logged.contains_key(condition) {
        return false;
    }
    logged.insert(condition.to_owned(), Instant::now());
    true
}

/// Cuts a reason to what is worth reading in a log; the whole is stored with the signal.
fn brief(reason: &str) -> String {
    let mut reason = reason.to_owned();
    text::cut(&mut reason, 512);
    reason
}

/// A one-shot flush waits, so that faster senders can go first.
pub fn waiting(wait: Duration) {
    debug!(target: TARGET, ?wait, "waiting before the flush");
}

/// The facts about a claimed batch that are logged and counted.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub signals: usize,
    /// The batch lies behind rows that were claimed earlier.
    pub late: bool,
    /// The batch was taken over from another relay.
    pub taken_over: bool,
}

/// A batch was claimed.
pub fn claimed(signal: &str, Claim { signals, late, taken_over }: Claim, time: Duration) {
    meters::count("signalbus_claimed_total", signal, signals);
    meters::size("signalbus_batch_signals", signal, signals);
    meters::stage(signal, "claim", time);
    meters::step("signalbus_batches_in_flight", signal, true);
    if late {
        meters::count("signalbus_late_commits_total", signal, signals);
    }
    if taken_over {
        meters::count("signalbus_takeovers_total", signal, 1);
        meters::count("signalbus_duplicates_suspected_total", signal, signals);
        warn!(target: TARGET, signal, signals, "claim taken over: its relay died and may have sent the batch");
    }
}

/// A batch came back from its plugin.
pub fn settling(signal: &str, signals: &[Signal], settlement: &Settlement, time: Duration) {
    meters::stage(signal, "send", time);
    debug!(target: TARGET, signal, signals = signals.len(), sent = settlement.sent(), "batch sent");
    for deferral in &settlement.defer {
        let id = &signals[deferral.index].id;
        let delay_ms = deferral.delay.as_millis();
        warn!(target: TARGET, id, attempt = deferral.attempts, delay_ms, reason = brief(&deferral.reason), "signal deferred");
    }
    for burial in &settlement.bury {
        let id = &signals[burial.index].id;
        warn!(target: TARGET, id, attempt = burial.attempts, reason = brief(&burial.reason), "signal dead-lettered");
    }
    match &settlement.outage {
        None => {}
        // The reason is logged where the type pauses or the flush gives up.
        Some(Outage::Unavailable { reason, .. }) => {
            meters::count_kind("signalbus_outages_total", signal, "kind", "unavailable");
            debug!(target: TARGET, signal, reason, "outage");
        }
        Some(Outage::Misconfigured { reason }) => {
            meters::count_kind("signalbus_outages_total", signal, "kind", "misconfigured");
            debug!(target: TARGET, signal, reason, "outage");
        }
    }
}

/// A batch was settled or given up.
pub fn settled(signal: &str, time: Duration) {
    meters::stage(signal, "settle", time);
    meters::step("signalbus_batches_in_flight", signal, false);
}

/// A settlement was applied.
pub fn tallied(signal: &str, settlement: &Settlement) {
    meters::count("signalbus_sent_total", signal, settlement.sent());
    meters::count("signalbus_skipped_total", signal, settlement.skipped);
    meters::count("signalbus_deferred_total", signal, settlement.defer.len());
    meters::count("signalbus_buried_total", signal, settlement.bury.len());
}

/// A claim was renewed.
pub fn renewed(signal: &str) {
    debug!(target: TARGET, signal, "claim renewed");
}

/// A claim could not be renewed in time.
pub fn claim_lost(signal: &str) {
    warn!(target: TARGET, signal, "claim lost: the batch may be sent twice");
}

/// A settle was fenced: the claim belonged to another relay.
pub fn fenced(signal: &str, signals: usize) {
    meters::count("signalbus_fenced_total", signal, 1);
    meters::count("signalbus_duplicates_suspected_total", signal, signals);
    warn!(target: TARGET, signal, signals, "settle fenced: the batch may be sent twice");
}

/// The database is unreachable or returned an error. `kind` is `unreachable`, `passing` or `refused`.
pub fn database_error(error: &dyn Display, kind: &'static str) {
    meters::count_global("signalbus_database_errors_total", "kind", kind);
    if should_log(&format!("database {error}")) {
        warn!(target: TARGET, %error, "database error, retrying");
    }
}

/// The database is reachable again.
pub fn database_recovered() {
    if should_log("database recovered") {
        info!(target: TARGET, "database reachable again");
    }
}

/// A signal type was woken to look for signals.
pub fn woken(source: &'static str) {
    meters::count_global("signalbus_wakeups_total", "source", source);
}

/// A signal type was paused.
pub fn paused(signal: &str, wait: Duration, reason: &str) {
    if should_log(&format!("paused {signal} {reason}")) {
        warn!(target: TARGET, signal, ?wait, reason, "signal type paused");
    }
}

/// A signal type was resumed after a pause.
pub fn resumed(signal: &str) {
    info!(target: TARGET, signal, "signal type resumed");
}

/// The relay has started.
pub fn running(signals: &[&str], listen: Option<std::net::SocketAddr>) {
    let (signals, listen) = (signals.join(","), listen.map(|address| address.to_string()));
    info!(target: TARGET, signals, listen, "relay running");
}

/// The relay was told to stop, and finishes what is in flight.
pub fn draining(grace: Duration) {
    info!(target: TARGET, ?grace, "draining");
}

/// Everything in flight was settled.
pub fn drained() {
    info!(target: TARGET, "drained");
}

/// Rows were replaced while they were sent: they stay, to be sent as they are now.
pub fn changed(signal: &str, rows: usize) {
    meters::count("signalbus_changed_total", signal, rows);
    debug!(target: TARGET, signal, rows, "rows changed while they were sent");
}

/// Rows were sent, and the database does not delete them now. They are not sent again.
pub fn undeleted(signal: &str, rows: usize, reason: &str) {
    meters::count("signalbus_undeleted_total", signal, rows);
    warn!(target: TARGET, signal, rows, reason, "rows were sent and cannot be deleted now; they are not sent again");
}

/// A signal type cannot run: its table or its plugin is unfit. It is tried again now and then.
pub fn parked(signal: &str, reason: &str) {
    error!(target: TARGET, signal, reason, "signal type cannot run; trying again every few seconds");
}

/// A signal type runs that could not run, or whose table was altered.
pub fn unparked(signal: &str) {
    info!(target: TARGET, signal, "signal type started again");
}

/// Dead letters were redriven.
pub fn redriven(signal: &str, letters: usize) {
    meters::count("signalbus_redriven_total", signal, letters);
}

/// The backlog of a signal type was sampled.
pub fn sampled(signal: &str, pending: u64, oldest: Duration, held: Held) {
    meters::level("signalbus_pending", signal, pending);
    meters::level("signalbus_oldest_age_seconds", signal, oldest.as_secs());
    meters::level("signalbus_deferred", signal, held.deferred);
    meters::level("signalbus_dead_letters", signal, held.dead);
    meters::level("signalbus_undeleted", signal, held.undeleted);
}

/// How many rows of a signal type are held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    pub deferred: u64,
    pub dead: u64,
    /// Were sent, and could not be deleted.
    pub undeleted: u64,
}

/// Updates the gauges that are only set when the metrics are read.
pub fn update_gauges(connections: (usize, usize), generations: usize, ready: &[(String, bool)]) {
    meters::level_global("signalbus_database_connections", connections.0);
    meters::level_global("signalbus_database_connections_max", connections.1);
    meters::level_global("signalbus_plugin_generations", generations);
    for (signal, ready) in ready {
        meters::level("signalbus_ready", signal, u64::from(*ready));
    }
}

/// The relay is notified of commits.
pub fn watching(how: &str) {
    info!(target: TARGET, how, "waiting for commits");
}

/// The relay is not notified of commits, and relies on polling.
pub fn not_watching(error: &dyn Display) {
    if should_log(&format!("watch {error}")) {
        warn!(target: TARGET, %error, "commit notifications unavailable, polling instead");
    }
}

/// A plugin call ended, with or without an answer.
pub fn called(signal: &str, time: Duration) {
    meters::time("signalbus_plugin_seconds", signal, time);
}

/// A plugin call ended without an answer.
pub fn call_failed(signal: &str, kind: &'static str) {
    meters::count_kind("signalbus_plugin_failures_total", signal, "kind", kind);
}

/// A plugin imports something that it is not granted. Only counted: the load error names it.
pub fn needs(signal: &str, capability: &'static str) {
    meters::count_kind("signalbus_plugin_denied_total", signal, "capability", capability);
}

/// A plugin was denied something that it is not granted.
pub fn denied(signal: &str, capability: &'static str) {
    needs(signal, capability);
    if should_log(&format!("denied {signal} {capability}")) {
        warn!(target: TARGET, signal, capability, "plugin denied a capability that is not granted");
    }
}

/// Like [`denied`], with a reason: what the plugin asked for, and the cure.
pub fn denied_because(signal: &str, capability: &'static str, reason: &str) {
    needs(signal, capability);
    if should_log(&format!("denied {signal} {capability}")) {
        warn!(target: TARGET, signal, capability, reason = brief(reason), "plugin denied a capability that is not granted");
    }
}

/// A plugin has reached a bound on what it may open or hold.
pub fn bound_reached(signal: &str, reason: &str) {
    if should_log(&format!("bound {signal} {reason}")) {
        warn!(target: TARGET, signal, reason, "plugin reached a bound");
    }
}

/// A list of messages was published, or met an outage of the bus.
pub fn published<'a>(connection: &str, outcomes: Result<impl Iterator<Item = &'a Outcome> + Clone, &Outage>, time: Duration) {
    let counts = outcomes.as_ref().ok().map(|outcomes| {
        let of = |wanted: fn(&&Outcome) -> bool| outcomes.clone().filter(wanted).count();
        [
            ("sent", of(|outcome| matches!(outcome, Outcome::Sent))),
            ("retry", of(|outcome| matches!(outcome, Outcome::Retry { .. }))),
            ("reject", of(|outcome| matches!(outcome, Outcome::Reject { .. }))),
        ]
    });
    meters::published(connection, counts, time);
    if let Err(Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) = outcomes
        && should_log(&format!("bus {connection}"))
    {
        warn!(target: TARGET, connection, reason, "bus not available");
    }
}

/// A plugin has waited for its share of something, `room` for an instance or a `processor`.
pub fn waited(signal: &str, resource: &'static str, time: Duration) {
    meters::wait(signal, resource, time);
}

/// Messages were published, and the bus did not confirm them: they are sent again. `others` says whether it has decided
/// on others of their call.
pub fn unconfirmed(connection: &str, messages: usize, others: bool, reason: &str) {
    meters::messages(connection, "unconfirmed", messages);
    if others && should_log(&format!("unconfirmed {connection}")) {
        warn!(target: TARGET, connection, messages, reason, "messages not confirmed, sending them again");
    }
}

/// The memory that a plugin instance has used.
pub fn plugin_memory(signal: &str, bytes: usize) {
    meters::high_water("signalbus_plugin_memory_bytes", signal, bytes);
}

/// A plugin is still being compiled.
pub fn compiling(plugin: &str, signal_type: &str, time: Duration) {
    info!(target: TARGET, plugin, signal_type, seconds = time.as_secs(), "compiling plugin; the result is cached for the next start");
}

/// A component was loaded; takes the cache's hits and misses so far.
pub fn compiled(signal: &str, time: Duration, (hits, misses): (usize, usize)) {
    meters::time("signalbus_plugin_compile_seconds", signal, time);
    meters::count_up_to("signalbus_plugin_cache_hits_total", hits);
    meters::count_up_to("signalbus_plugin_cache_misses_total", misses);
}

/// A plugin has sent a signal although one ahead of it, with the same order key, was not sent.
pub fn out_of_order(plugin: &str, signal_type: &str, id: &str) {
    if should_log(&format!("out of order {plugin} {signal_type}")) {
        warn!(target: "plugin", plugin, signal_type, signal = id, "signal sent out of order by its plugin");
    }
}

/// A plugin call was stopped at a place where none was stopped before.
pub fn stopped(plugin: &str, generation: &str, signal_type: &str, signals: &str, reason: &str, backtrace: &str) {
    // The last field, since it has many lines.
    let backtrace = format!("\n{backtrace}");
    error!(target: "plugin", plugin, generation, signal_type, signals, reason, %backtrace, "plugin stopped");
}

/// A plugin was swapped.
pub fn swapped(signal: &str, digest: &str) {
    meters::count_kind("signalbus_plugin_swaps_total", signal, "result", "done");
    info!(target: TARGET, signal, digest, "plugin swapped");
}

/// A changed plugin cannot be used; the current one stays.
pub fn swap_refused(signal: &str, reason: &str) {
    meters::count_kind("signalbus_plugin_swaps_total", signal, "result", "refused");
    warn!(target: TARGET, signal, reason, "plugin not swapped, keeping the current one");
}

/// A generation was replaced by the previous one.
pub fn rolled_back(signal: &str, from: &str, to: &str, reason: &str) {
    meters::count("signalbus_plugin_rollbacks_total", signal, 1);
    warn!(target: TARGET, signal, from, to, reason, "plugin rolled back");
}

/// The configuration was reloaded.
pub fn reloaded(started: &[String], stopped: &[String], changed: &[String]) {
    meters::count_global("signalbus_reloads_total", "result", "done");
    let (started, stopped, changed) = (started.join(","), stopped.join(","), changed.join(","));
    info!(target: TARGET, started, stopped, changed, "configuration reloaded");
}

/// The changed configuration cannot be used; the running one stays.
pub fn reload_refused(faults: &[String]) {
    meters::count_global("signalbus_reloads_total", "result", "refused");
    for fault in faults {
        warn!(target: TARGET, fault, "configuration not reloaded, keeping the running one");
    }
}
