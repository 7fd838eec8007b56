//! Everything that the relay says: constant messages, facts as fields; and what it counts.
#![forbid(unsafe_code)]

pub mod meters;

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use signalbus_core::settlement::Settlement;
use signalbus_core::signal::{Outage, Outcome, Signal, Verdict};

/// Whether it is time to say something (again) that may go on for hours: once, and then every minute.
fn worth_saying(fault: &str) -> bool {
    const INTERVAL: Duration = Duration::from_secs(60);
    static SAID: Mutex<Option<HashMap<String, Instant>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = said.get_or_insert_default();
    said.retain(|_, at| at.elapsed() < INTERVAL);
    if said.contains_key(fault) {
        return false;
    }
    said.insert(fault.to_owned(), Instant::now());
    true
}

/// What is pending is known; faster senders may go first.
pub fn waiting(wait: Duration) {
    debug!(?wait, "waiting before the flush");
}

/// What the log and the metrics tell of a claimed batch.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub signals: usize,
    /// It lies behind what was claimed before.
    pub late: bool,
    /// Its claim was another relay's.
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
        warn!(signal, signals, "claim taken over: its relay died, and may have sent the batch");
    }
}

/// A batch has come back from its plugin.
pub fn settling(signal: &str, signals: &[Signal], settlement: &Settlement, time: Duration) {
    meters::stage(signal, "send", time);
    debug!(signal, signals = signals.len(), sent = settlement.sent(), "batch sent");
    for deferral in &settlement.defer {
        let id = signals[deferral.index].id(signal);
        let delay_ms = deferral.delay.as_millis();
        warn!(id, attempt = deferral.attempts, delay_ms, reason = deferral.reason, "signal deferred");
    }
    for burial in &settlement.bury {
        let id = signals[burial.index].id(signal);
        warn!(id, attempt = burial.attempts, reason = burial.reason, "signal buried");
    }
    match &settlement.outage {
        None => {}
        // Who pauses, or gives up, says why.
        Some(Outage::Unavailable { reason, .. }) => {
            meters::count_kind("signalbus_outages_total", signal, "kind", "unavailable");
            debug!(signal, reason, "outage");
        }
        Some(Outage::Misconfigured { reason }) => {
            meters::count_kind("signalbus_outages_total", signal, "kind", "misconfigured");
            debug!(signal, reason, "outage");
        }
    }
}

/// A batch is settled, or was given up.
pub fn settled(signal: &str, time: Duration) {
    meters::stage(signal, "settle", time);
    meters::step("signalbus_batches_in_flight", signal, false);
}

/// What a settlement came to.
pub fn tallied(signal: &str, settlement: &Settlement) {
    meters::count("signalbus_sent_total", signal, settlement.sent());
    meters::count("signalbus_skipped_total", signal, settlement.skipped);
    meters::count("signalbus_deferred_total", signal, settlement.defer.len());
    meters::count("signalbus_buried_total", signal, settlement.bury.len());
}

/// A claim was renewed.
pub fn renewed(signal: &str) {
    debug!(signal, "claim renewed");
}

/// A claim could not be renewed in time.
pub fn claim_lost(signal: &str) {
    warn!(signal, "claim lost: the batch may be sent twice");
}

/// A settle came too late.
pub fn fenced(signal: &str, signals: usize) {
    meters::count("signalbus_fenced_total", signal, 1);
    meters::count("signalbus_duplicates_suspected_total", signal, signals);
    warn!(signal, signals, "settle fenced: the batch may be sent twice");
}

/// The database does not answer, or refuses; the relay retries. The kind is `unreachable`, `passing`
/// or `refused`.
pub fn database_error(error: &dyn Display, kind: &'static str) {
    meters::count_of("signalbus_database_errors_total", "kind", kind);
    if worth_saying(&format!("database {error}")) {
        warn!(%error, "database trouble, trying again");
    }
}

/// The database answers again.
pub fn database_back() {
    if worth_saying("database back") {
        info!("database answers again");
    }
}

/// There is a reason to look for signals.
pub fn woken(source: &'static str) {
    meters::count_of("signalbus_wakeups_total", "source", source);
}

/// A signal type can't be sent for now.
pub fn paused(signal: &str, wait: Duration, reason: &str) {
    if worth_saying(&format!("paused {signal} {reason}")) {
        warn!(signal, ?wait, reason, "signal type paused");
    }
}

/// A signal type is sent again after a pause.
pub fn resumed(signal: &str) {
    info!(signal, "signal type resumed");
}

/// The relay is ready to send.
pub fn running(signals: &[&str], listen: Option<std::net::SocketAddr>) {
    let (signals, listen) = (signals.join(","), listen.map(|address| address.to_string()));
    info!(signals, listen, "relay running");
}

/// The relay was told to stop.
pub fn draining(grace: Duration) {
    info!(?grace, "draining");
}

/// Everything in flight is settled.
pub fn drained() {
    info!("drained");
}

/// A dead letter was put back.
pub fn redriven(signal: &str) {
    meters::count("signalbus_redriven_total", signal, 1);
}

/// How much waits was counted.
pub fn sampled(signal: &str, pending: u64, oldest: Duration, deferred: u64, dead: u64) {
    meters::level("signalbus_pending", signal, pending);
    meters::level("signalbus_oldest_age_seconds", signal, oldest.as_secs());
    meters::level("signalbus_deferred", signal, deferred);
    meters::level("signalbus_dead_letters", signal, dead);
}

/// How things are at the moment somebody asks for the metrics.
pub fn now(connections: (usize, usize), generations: usize, ready: &[(String, bool)]) {
    meters::level_of("signalbus_database_connections", connections.0);
    meters::level_of("signalbus_database_connections_max", connections.1);
    meters::level_of("signalbus_plugin_generations", generations);
    for (signal, ready) in ready {
        meters::level("signalbus_ready", signal, u64::from(*ready));
    }
}

/// How commits are noticed.
pub fn watching(how: &str) {
    info!(how, "waiting for commits");
}

/// Commits are not announced: signals are looked for by polling alone.
pub fn not_watching(error: &dyn Display) {
    if worth_saying(&format!("watch {error}")) {
        warn!(%error, "commits are not announced, polling instead");
    }
}

/// A plugin was called, and came back in some way.
pub fn called(signal: &str, time: Duration) {
    meters::time("signalbus_plugin_seconds", signal, time);
}

/// A call has no answer.
pub fn call_failed(signal: &str, kind: &'static str) {
    meters::count_kind("signalbus_plugin_failures_total", signal, "kind", kind);
}

/// A plugin would need what is not granted; who loads it says so.
pub fn needs(signal: &str, capability: &'static str) {
    meters::count_kind("signalbus_plugin_denied_total", signal, "capability", capability);
}

/// A plugin asked for something that was not granted.
pub fn denied(signal: &str, capability: &'static str) {
    needs(signal, capability);
    if worth_saying(&format!("denied {signal} {capability}")) {
        warn!(signal, capability, "plugin denied what it is not granted");
    }
}

/// The same, where there is more to tell: what it asked for, and the cure.
pub fn denied_because(signal: &str, capability: &'static str, reason: &str) {
    needs(signal, capability);
    if worth_saying(&format!("denied {signal} {capability}")) {
        warn!(signal, capability, reason, "plugin denied what it is not granted");
    }
}

/// A list of messages has come back from a bus.
pub fn published(connection: &str, verdict: &Verdict, time: Duration) {
    let outcomes = verdict.as_ref().ok().map(|outcomes| {
        let of = |wanted: fn(&&Outcome) -> bool| outcomes.iter().filter(wanted).count();
        [
            ("sent", of(|outcome| matches!(outcome, Outcome::Sent))),
            ("retry", of(|outcome| matches!(outcome, Outcome::Retry { .. }))),
            ("reject", of(|outcome| matches!(outcome, Outcome::Reject { .. }))),
        ]
    });
    meters::published(connection, outcomes, time);
    if let Err(Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) = verdict
        && worth_saying(&format!("bus {connection}"))
    {
        warn!(connection, reason, "bus not available");
    }
}

/// What an instance has used.
pub fn plugin_memory(signal: &str, bytes: usize) {
    meters::high_water("signalbus_plugin_memory_bytes", signal, bytes);
}

/// A plugin is not ready yet.
pub fn compiling(plugin: &str, signal_type: &str, time: Duration) {
    info!(plugin, signal_type, seconds = time.as_secs(), "compiling plugin; it is kept for the next start");
}

/// A component was loaded; the cache's hits and misses so far.
pub fn compiled(signal: &str, time: Duration, (hits, misses): (usize, usize)) {
    meters::time("signalbus_plugin_compile_seconds", signal, time);
    meters::count_up_to("signalbus_plugin_cache_hits_total", hits);
    meters::count_up_to("signalbus_plugin_cache_misses_total", misses);
}

/// A call of a plugin was stopped, at a place where none was before.
pub fn stopped(plugin: &str, generation: &str, signal_type: &str, signals: &str, reason: &str, backtrace: &str) {
    // Last, since it has many lines.
    let backtrace = format!("\n{backtrace}");
    error!(target: "plugin", plugin, generation, signal_type, signals, reason, %backtrace, "plugin stopped");
}

/// A plugin was changed while the relay runs.
pub fn swapped(signal: &str, digest: &str) {
    meters::count_kind("signalbus_plugin_swaps_total", signal, "result", "done");
    info!(signal, digest, "plugin swapped");
}

/// A changed plugin can't be used; the one before stays.
pub fn swap_refused(signal: &str, reason: &str) {
    meters::count_kind("signalbus_plugin_swaps_total", signal, "result", "refused");
    warn!(signal, reason, "plugin not swapped, the one before stays");
}

/// A generation was replaced by the one before.
pub fn rolled_back(signal: &str, from: &str, to: &str, reason: &str) {
    meters::count("signalbus_plugin_rollbacks_total", signal, 1);
    warn!(signal, from, to, reason, "plugin rolled back");
}

/// The configuration was read again.
pub fn reloaded(started: &[String], stopped: &[String], changed: &[String]) {
    meters::count_of("signalbus_reloads_total", "result", "done");
    let (started, stopped, changed) = (started.join(","), stopped.join(","), changed.join(","));
    info!(started, stopped, changed, "configuration reloaded");
}

/// The configuration was read again, and can't be used.
pub fn reload_refused(faults: &[String]) {
    meters::count_of("signalbus_reloads_total", "result", "refused");
    for fault in faults {
        warn!(fault, "configuration not reloaded, the running one stays");
    }
}
