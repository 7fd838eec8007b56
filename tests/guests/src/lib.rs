//! Helpers shared by the guests.

#![forbid(unsafe_code)]

use signalbus_guest::{Error, Outcome, Result, Signal, config};
use std::str::FromStr;
use std::time::Duration;

/// Returns a setting, if it is given and parses as a `T`.
pub fn setting<T: FromStr>(key: &str) -> Option<T> {
    config::get(key)?.parse().ok()
}

/// Returns a setting in milliseconds.
pub fn millis(key: &str) -> Option<Duration> {
    setting(key).map(Duration::from_millis)
}

/// Returns the ids of all signals, separated by commas.
pub fn ids(signals: &[Signal]) -> String {
    signals.iter().map(Signal::id).collect::<Vec<_>>().join(",")
}

/// Panics if the column `payload` equals the setting `poison`, or if there is no such setting.
pub fn trap(signal: &Signal) {
    let payload = signal.get::<String>("payload").ok();
    if config::get("poison").is_none_or(|poison| payload == Some(poison)) {
        panic!("poisoned by {:?}", signal.id());
    }
}

/// Does what the column `payload` says.
pub fn obey(signal: &Signal) -> Result {
    let payload: &str = signal.get("payload")?;
    match payload.split_once(':').unwrap_or((payload, "")) {
        ("sent", _) => Ok(Outcome::Sent),
        ("skip", _) => Ok(Outcome::Skip),
        ("retry", "") => Ok(Outcome::retry("told to retry")),
        ("retry", after) => {
            let after = Duration::from_millis(after.parse()?);
            Ok(Outcome::retry_after(after, "told to retry later"))
        }
        ("reject", _) => Ok(Outcome::reject("told to reject")),
        ("unavailable", _) => Err(Error::unavailable("told to be unavailable")),
        ("misconfigured", _) => Err(Error::misconfigured("told to be misconfigured")),
        ("trap", _) => panic!("told to trap"),
        ("spin", _) => spin(),
        ("sleep", millis) => {
            std::thread::sleep(Duration::from_millis(millis.parse()?));
            Ok(Outcome::Sent)
        }
        _ => Ok(Outcome::reject(format!("unknown payload {payload:?}"))),
    }
}

/// Loops forever without calling the relay.
pub fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}
