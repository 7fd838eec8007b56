//! Writes what looks like further log lines, and what controls a terminal, into records, both standard
//! streams and its reasons: it rejects every signal.

use signalbus_guest::{BulkResult, Outcome, Signal, log, plugin};

const FORGED: &str = "odd\n1970-01-01T00:00:00Z  INFO signalbus: forged\r\u{1b}[2J\u{9b}\u{2028}\u{202e}";

fn send_all(signals: &[Signal]) -> BulkResult {
    log::warn!("fields", text = FORGED);
    log::emit(log::Level::Error, FORGED, [(FORGED, "value")]);
    println!("{}", FORGED.replace('\n', " "));
    eprintln!("{}", FORGED.replace('\n', " "));
    Ok(vec![Outcome::reject(FORGED); signals.len()])
}

plugin!(bulk send_all);
