//! Opens up to `sockets` (1000) connections to the setting `address` and keeps them for `seconds` (0), unless it
//! `keeps` none (true), then rejects with their number and what ended it. With the setting `listen`, it listens at that address instead.

use signalbus_guest::{BulkResult, Outcome, Signal, config, plugin};
use signalbus_test_guests::setting;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn send_all(signals: &[Signal]) -> BulkResult {
    if let Some(address) = config::get("listen") {
        let seen = TcpListener::bind(address).map_or_else(|error| format!("refused: {error}"), |_| "listens".to_owned());
        return Ok(vec![Outcome::reject(seen); signals.len()]);
    }
    let address = config::get("address").unwrap_or_default();
    let mut hoard = Vec::new();
    let (mut opened, mut end) = (0, "done".to_owned());
    for _ in 0..setting("sockets").unwrap_or(1000) {
        match TcpStream::connect(&address) {
            Ok(socket) => {
                opened += 1;
                hoard.extend(setting("keeps").unwrap_or(true).then_some(socket));
            }
            Err(error) => {
                end = format!("{:?}: {error}", error.kind());
                break;
            }
        }
    }
    std::thread::sleep(Duration::from_secs(setting("seconds").unwrap_or(0)));
    Ok(vec![Outcome::reject(format!("opened {opened}: {end}")); signals.len()])
}

plugin!(bulk send_all);
