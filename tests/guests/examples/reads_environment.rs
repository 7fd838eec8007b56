//! Rejects with what it can see of the machine, as JSON: variables, arguments, files, the clock.

use serde_json::json;
use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use std::time::SystemTime;
use std::{env, fs};

fn send_all(signals: &[Signal]) -> BulkResult {
    let files = ["/", ".", "/etc/passwd"].map(|path| match fs::metadata(path) {
        Ok(found) => format!("{path}: {} bytes", found.len()),
        Err(error) => format!("{path}: {:?}", error.kind()),
    });
    let seen = json!({
        "variables": env::vars_os().map(|(key, _)| format!("{key:?}")).collect::<Vec<_>>(),
        "arguments": env::args_os().map(|argument| format!("{argument:?}")).collect::<Vec<_>>(),
        "readable": files.iter().filter(|file| file.ends_with("bytes")).collect::<Vec<_>>(),
        "refused": files.iter().filter(|file| !file.ends_with("bytes")).collect::<Vec<_>>(),
        "seconds": SystemTime::UNIX_EPOCH.elapsed()?.as_secs(),
    });
    Ok(vec![Outcome::reject(seen.to_string()); signals.len()])
}

plugin!(bulk send_all);
