//! Writes log lines and the errors that end a command to standard error.
//!
//! Standard error may be closed, or show a progress bar: writing to it never fails, and never tears
//! the bar. The texts of log events are in `signalbus_telemetry`.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::ProgressBar;
use tracing::field::Field;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use signalbus_core::text::printable;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// The filter unless `RUST_LOG` is set. Bus clients are silent: the relay logs their failures itself. So
/// is the plugin cache, which warns when two relays compile the same plugin at once.
const USUAL: &str = "info,sqlx=error,async_nats=off,lapin=off,rdkafka=off,rumqttc=off,wasmtime_internal_cache=off";

static FORMAT: OnceLock<Format> = OnceLock::new();
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error, with a progress bar below the log lines. A closed pipe is not an error.
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

/// Sets the progress bar that is kept below the log lines, until the next call.
pub(crate) fn keep_below(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Reports why a command failed, whatever `RUST_LOG` says.
pub(crate) fn failed(text: &str) {
    let line = match FORMAT.get() {
        Some(Format::Json) => {
            let mut timestamp = String::new();
            // Writing to a string cannot fail.
            let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
            serde_json::json!({ "timestamp": timestamp, "level": "ERROR", "message": text }).to_string()
        }
        Some(Format::Text) | None => format!("error: {}", printable(text)),
    };
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

/// Writes a field of a log line. Nothing that it holds starts another line or controls a terminal; only a
/// backtrace, whose names are escaped already, has many lines.
fn escaped(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", printable(&text)),
        "backtrace" => write!(writer, "backtrace={text}"),
        name => write!(writer, "{name}={}", printable(&text)),
    }
}

/// Starts logging to standard error, filtered by `RUST_LOG` (default: `info`).
pub(crate) fn start(format: Format) {
    let _ = FORMAT.set(format);
    let rust_log = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let filter = rust_log.as_deref().map(EnvFilter::try_new);
    let (filter, fault) = match filter {
        Some(Ok(filter)) => (filter, None),
        Some(Err(fault)) => (EnvFilter::new(USUAL), Some(fault)),
        None => (EnvFilter::new(USUAL), None),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(io::stderr().is_terminal()).with_writer(|| Stderr);
    match format {
        Format::Text => builder.fmt_fields(format::debug_fn(escaped).delimited(" ")).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    if let Some(fault) = fault {
        warn!(%fault, "invalid RUST_LOG; expected e.g. \"info,signalbus=debug\"");
    }
}
