//! Log lines and a command's last words, on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::ProgressBar;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise; the relay itself tells what buses go through.
const USUAL: &str = "info,sqlx=error,async_nats=off,lapin=off,rdkafka=off,rumqttc=off";

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(io::stderr().is_terminal()).with_writer(|| Stderr);
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    if let Some(fault) = fault {
        warn!(%fault, "RUST_LOG is not understood; write it as in \"info,signalbus=debug\"");
    }
}
