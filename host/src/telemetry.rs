//! Everything that the relay says: constant messages, facts as fields.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use tracing::{debug, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::outbox::{Batch, Error};
use crate::settlement::Settlement;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise.
const USUAL: &str = "info,sqlx=error";

static FORMAT: OnceLock<Format> = OnceLock::new();
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error, which nobody need read, with a progress bar below what is written to it.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let write = || {
            let _ = io::stderr().lock().write_all(line);
        };
        match &*BAR.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bar that log lines must not tear apart, until the next call.
pub(crate) fn keep_below(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Tells why a command could not do its work, whatever `RUST_LOG` says.
pub(crate) fn failed(text: &str) {
    let line = match FORMAT.get() {
        Some(Format::Json) => {
            let mut timestamp = String::new();
            // Writing to a string can't fail.
            let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
            serde_json::json!({ "timestamp": timestamp, "level": "ERROR", "message": text }).to_string()
        }
        Some(Format::Text) | None => format!("error: {text}"),
    };
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

/// Sends log lines to standard error; `RUST_LOG` says which (default: `info`).
pub fn start(format: Format) {
    let _ = FORMAT.set(format);
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
    let filter = wanted.as_deref().map(EnvFilter::try_new);
    let (filter, fault) = match filter {
        Some(Ok(filter)) => (filter, None),
        Some(Err(fault)) => (EnvFilter::new(USUAL), Some(fault)),
        None => (EnvFilter::new(USUAL), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| Stderr);
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    if let Some(fault) = fault {
        warn!(%fault, "RUST_LOG is not understood; write it as in \"info,signalbus=debug\"");
    }
}

/// What is pending is known; faster senders may go first.
pub(crate) fn waiting(wait: Duration) {
    debug!(?wait, "waiting before the flush");
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
