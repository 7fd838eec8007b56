//! A plugin's log output during one send: log records, and lines of standard output and error.
//!
//! Secrets must never reach the log, and a plugin must never flood it: records are redacted and
//! limited here. `guest` connects the plugin's interfaces; `call_log` takes the records in tests.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Level;

use super::call_log::Record;
use super::last_words::LastWords;
use super::plugin_context::PluginContext;
use signalbus_core::text::{self, printable};

/// The target of every event that a plugin causes.
macro_rules! target {
    () => {
        "plugin"
    };
}

/// The log output of one send, shared by all interfaces that the plugin can write to.
#[derive(Clone)]
pub(super) struct PluginLogs(Arc<Mutex<LogLines>>);

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

struct LogLines {
    context: PluginContext,
    /// Distinguishes the sends of one process.
    batch: u64,
    records: usize,
    bytes: usize,
    output: Vec<u8>,
    error: Vec<u8>,
    last_words: LastWords,
}

impl PluginLogs {
    /// Maximum number of records per send.
    const RECORDS: usize = 1000;
    /// Maximum number of bytes in these records together.
    const BYTES: usize = 256 << 10;
    /// Longer lines are cut into records of this many bytes.
    const LINE: usize = 8 << 10;
    /// Maximum number of bytes of a field's name and value; all fields of a record together are as long as a
    /// line.
    const NAME: usize = 256;
    const VALUE: usize = 4 << 10;

    pub(super) fn new(context: PluginContext) -> Self {
        static BATCHES: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Mutex::new(LogLines {
            context,
            batch: BATCHES.fetch_add(1, Ordering::Relaxed),
            records: 0,
            bytes: 0,
            output: Vec::new(),
            error: Vec::new(),
            last_words: LastWords::default(),
        })))
    }

    fn lines(&self) -> MutexGuard<'_, LogLines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a record of the `log` interface.
    pub(super) fn record(&self, level: Level, message: &str, fields: &[(String, String)]) {
        if self.keeps(level) {
            self.lines().record(level, message, fields);
        }
        // Without WASI, a panic can be reported only as a log record.
        if level == Level::ERROR && message.starts_with(LastWords::PANIC) {
            let mut lines = self.lines();
            let message = lines.context.grants.redact(message).into_owned();
            lines.last_words.push_line(&message);
        }
    }

    /// Returns whether records of this level are kept.
    pub(super) fn keeps(&self, level: Level) -> bool {
        enabled(level) || self.lines().context.call_log.is_some()
    }

    /// Logs output on a standard stream, line by line.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.lines().write(stream, bytes);
    }

    /// Ends the lines that an instance left open, and returns its last words on standard error,
    /// redacted.
    pub(super) fn close_lines(&self) -> Option<String> {
        let mut lines = self.lines();
        lines.end_line(Stream::Output);
        lines.end_line(Stream::Error);
        let words = std::mem::take(&mut lines.last_words).text;
        let words = lines.context.grants.redact(&words);
        (!words.is_empty()).then(|| words[..words.floor_char_boundary(LastWords::SHOWN)].to_owned())
    }
}

impl LogLines {
    fn is_full(&self) -> bool {
        self.records >= PluginLogs::RECORDS || self.bytes >= PluginLogs::BYTES
    }

    fn record(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let fields_bytes: usize = fields.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let bytes = message.len().min(PluginLogs::LINE) + fields_bytes.min(PluginLogs::LINE);
        if self.is_full() || self.bytes + bytes > PluginLogs::BYTES || !self.context.allowance.take(bytes) {
            self.context.allowance.miss();
            return;
        }
        self.records += 1;
        self.bytes += bytes;
        emit(&self.context, self.batch, level, message, fields);
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        // A secret that is cut in half could not be redacted.
        let most = PluginLogs::LINE + self.context.grants.longest_secret();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(PluginLogs::LINE) {
                self.line(stream).extend_from_slice(part);
                if part.ends_with(b"\n") {
                    self.end_line(stream);
                }
                while self.line(stream).len() >= most {
                    self.cut_line(stream);
                }
            }
        }
    }

    fn line(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }

    /// Logs the beginning of a line that is too long.
    fn cut_line(&mut self, stream: Stream) {
        let mut line = std::mem::take(self.line(stream));
        let rest = line.split_off(self.context.grants.cut_between_secrets(&line, PluginLogs::LINE));
        *self.line(stream) = rest;
        self.log_line(stream, &line);
    }

    fn end_line(&mut self, stream: Stream) {
        while self.line(stream).len() > PluginLogs::LINE {
            self.cut_line(stream);
        }
        let line = std::mem::take(self.line(stream));
        self.log_line(stream, &line);
    }

    fn log_line(&mut self, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        let level = match stream {
            Stream::Output => Level::INFO,
            Stream::Error => {
                self.last_words.push_line(&self.context.grants.redact(text));
                Level::WARN
            }
        };
        self.record(level, text, &[]);
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        self.end_line(Stream::Output);
        self.end_line(Stream::Error);
        if let Some(dropped) = self.context.allowance.untold() {
            let message = format!("{dropped} log records dropped");
            emit(&self.context, self.batch, Level::WARN, &message, &[]);
        }
    }
}

fn joined(fields: &[(String, String)]) -> String {
    let mut text = String::new();
    for (key, value) in fields {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{space}{}={}", word(key), word(value));
    }
    text
}

/// Quotes a text that is not a single word.
fn word(text: &str) -> Cow<'_, str> {
    let plain = !text.is_empty() && !text.contains([' ', '"', '=']) && matches!(printable(text), Cow::Borrowed(_));
    if plain { text.into() } else { format!("{text:?}").into() }
}

fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: target!(), Level::ERROR),
        Level::WARN => tracing::enabled!(target: target!(), Level::WARN),
        Level::INFO => tracing::enabled!(target: target!(), Level::INFO),
        Level::DEBUG => tracing::enabled!(target: target!(), Level::DEBUG),
        Level::TRACE => tracing::enabled!(target: target!(), Level::TRACE),
    }
}

fn emit(context: &PluginContext, batch: u64, level: Level, message: &str, fields: &[(String, String)]) {
    let (plugin, generation, signal_type) = (&*context.plugin, &*context.generation, &*context.signal_type);
    // Secrets are looked for before anything is cut or escaped.
    let shown = |text: &str, most: usize| {
        let mut text = context.grants.redact(text).into_owned();
        text::cut(&mut text, most);
        text
    };
    let message = shown(message, PluginLogs::LINE);
    let shown = |(key, value): &(String, String)| (shown(key, PluginLogs::NAME), shown(value, PluginLogs::VALUE));
    let fields: Vec<(String, String)> = fields.iter().map(shown).collect();
    if let Some(call_log) = &context.call_log {
        return call_log.record(Record { level, message, fields });
    }
    let mut fields = joined(&fields);
    text::cut(&mut fields, PluginLogs::LINE);
    macro_rules! event {
        ($level:expr) => {
            if fields.is_empty() {
                tracing::event!(target: target!(), $level, plugin, generation, signal_type, batch, "{message}")
            } else {
                tracing::event!(target: target!(), $level, plugin, generation, signal_type, batch, fields = %fields, "{message}")
            }
        };
    }
    match level {
        Level::ERROR => event!(Level::ERROR),
        Level::WARN => event!(Level::WARN),
        Level::INFO => event!(Level::INFO),
        Level::DEBUG => event!(Level::DEBUG),
        Level::TRACE => event!(Level::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grants;

    fn logs() -> PluginLogs {
        let grants = Grants { secrets: vec![("key".into(), "hunter22".into())], ..Grants::default() };
        PluginLogs::new(PluginContext { grants: grants.into(), ..PluginContext::for_plugin("p", "T") })
    }

    fn counts(logs: &PluginLogs) -> (usize, u64) {
        let lines = logs.lines();
        (lines.records, lines.context.allowance.untold().unwrap_or_default())
    }

    #[test]
    fn each_line_is_a_record_however_it_was_written() {
        let logs = logs();
        logs.write(Stream::Output, b"one\ntw");
        assert_eq!(counts(&logs), (1, 0));
        logs.write(Stream::Error, b"between\n");
        logs.write(Stream::Output, b"o\n\nthree");
        assert_eq!(counts(&logs), (3, 0));
        logs.close_lines();
        assert_eq!(counts(&logs), (4, 0));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let logs = logs();
        logs.write(Stream::Output, &vec![b'x'; 2 * PluginLogs::LINE + 1]);
        assert_eq!(counts(&logs), (1, 0));
        assert_eq!(logs.lines().output.len(), PluginLogs::LINE + 1);
        logs.close_lines();
        assert_eq!(counts(&logs), (3, 0));
    }

    #[test]
    fn surplus_records_are_counted_and_dropped() {
        let logs = logs();
        for _ in 0..PluginLogs::RECORDS + 5 {
            logs.write(Stream::Output, b"x\n");
        }
        assert_eq!(counts(&logs), (PluginLogs::RECORDS, 5));
    }

    #[test]
    fn records_are_limited_by_their_bytes_too() {
        let logs = logs();
        let line = [&[b'x'; PluginLogs::LINE - 1][..], b"\n"].concat();
        for _ in 0..40 {
            logs.write(Stream::Error, &line);
        }
        let (records, dropped) = counts(&logs);
        assert_eq!(records, PluginLogs::BYTES / (PluginLogs::LINE - 1));
        assert_eq!(records as u64 + dropped, 40);
    }

    #[test]
    fn a_panic_is_reported_with_location_and_message() {
        let logs = logs();
        logs.write(
            Stream::Error,
            b"earlier\n\nthread '<unnamed>' (1) panicked at src/lib.rs:9:5:\nassertion failed\n  left: hunter22\n\
              note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
        );
        let words = logs.close_lines();
        assert_eq!(words.as_deref(), Some("panicked at src/lib.rs:9:5: assertion failed left: [secret]"));
        assert_eq!(logs.close_lines(), None);
    }

    #[test]
    fn the_last_line_is_reported_even_if_unfinished_or_invalid() {
        let logs = logs();
        logs.write(Stream::Error, b"first\nlast \xff");
        logs.write(Stream::Output, b"not an error\n");
        assert_eq!(logs.close_lines().as_deref(), Some("last \u{fffd}"));
    }

    #[test]
    fn fields_are_unambiguous() {
        let fields = [("a", "1"), ("b", "x y"), ("c", ""), ("d", "q=\"1\"")];
        let fields = fields.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(joined(&fields), r#"a=1 b="x y" c="" d="q=\"1\"""#);
    }
}
