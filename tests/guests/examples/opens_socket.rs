//! Connects to the setting `address` (127.0.0.1:9), and rejects with the result.

use signalbus_guest::{BulkResult, Outcome, Signal, config, plugin};
use std::net::TcpStream;

fn send_all(signals: &[Signal]) -> BulkResult {
    let address = config::get("address").unwrap_or_else(|| "127.0.0.1:9".to_owned());
    let seen = match TcpStream::connect(address) {
        Ok(_) => "connected".to_owned(),
        Err(error) => format!("refused: {:?}: {error}", error.kind()),
    };
    Ok(vec![Outcome::reject(seen); signals.len()])
}

plugin!(bulk send_all);
