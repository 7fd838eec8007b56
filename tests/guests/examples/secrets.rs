//! Logs whether there is a secret `key`, and whether the setting `greeting` is `hello`, then sends.

use signalbus_guest::{BulkResult, Outcome, Signal, config, log, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    let present = config::secret("key").is_some();
    let greeted = config::get("greeting").as_deref() == Some("hello");
    log::info!("secrets", present = present, greeted = greeted);
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
