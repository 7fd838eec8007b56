//! Everything that the relay says: constant messages, facts as fields.

use std::io::IsTerminal;

use tracing::{debug, warn};
use tracing_subscriber::EnvFilter;

use crate::outbox::{Batch, Error};
use crate::settlement::Settlement;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Sends log lines to standard error; `RUST_LOG` says which (default: `info`).
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=error"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

/// A batch has come back from its plugin.
pub(crate) fn settling(signal: &str, batch: &Batch, settlement: &Settlement) {
    debug!(signal, signals = batch.signals.len(), sent = settlement.sent(), "batch sent");
    for deferral in &settlement.defer {
        let id = batch.signals[deferral.index].id(signal);
        let delay_ms = deferral.delay.as_millis();
        warn!(id, attempt = deferral.attempts, delay_ms, reason = deferral.reason, "signal deferred");
    }
    for burial in &settlement.bury {
        let id = batch.signals[burial.index].id(signal);
        warn!(id, attempt = burial.attempts, reason = burial.reason, "signal buried");
    }
    if let Some(outage) = &settlement.outage {
        warn!(signal, ?outage, "outage");
    }
}

/// A claim was kept for another while, or was lost.
pub(crate) fn renewed(signal: &str, renewed: Result<bool, Error>) {
    match renewed {
        Ok(true) => debug!(signal, "claim renewed"),
        Ok(false) => warn!(signal, "claim lost: the batch may be sent twice"),
        Err(error) => warn!(signal, %error, "claim not renewed"),
    }
}

/// A settle came too late.
pub(crate) fn fenced(signal: &str, batch: &Batch) {
    warn!(signal, signals = batch.signals.len(), "settle fenced: the batch may be sent twice");
}

/// The database does not answer; the relay tries on.
pub(crate) fn database_trouble(error: &Error) {
    warn!(%error, "database trouble, trying again");
}
