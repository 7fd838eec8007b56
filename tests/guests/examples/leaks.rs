//! Leaks the secret `key` wherever it can: in records, on both standard streams, and in its result, which
//! the setting `how` selects: `panic`, `retry`, `unavailable`, `misconfigured`, otherwise a rejection.

use signalbus_guest::{BulkResult, Error, Outcome, Signal, config, log, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    let secret = config::secret("key").unwrap_or_default();
    log::warn!("the key is", key = secret);
    log::emit(log::Level::Error, &secret, [("text", secret.as_str())]);
    println!("key {secret}");
    // A line is cut after 8 KiB.
    println!("{}{secret}", "x".repeat((8 << 10) - 9));
    eprintln!("key {secret}");
    match config::get("how").as_deref() {
        Some("panic") => panic!("with {secret}"),
        Some("retry") => Ok(vec![Outcome::retry(secret); signals.len()]),
        Some("unavailable") => Err(Error::unavailable(secret)),
        Some("misconfigured") => Err(Error::misconfigured(secret)),
        _ => Ok(vec![Outcome::reject(secret); signals.len()]),
    }
}

plugin!(bulk send_all);
