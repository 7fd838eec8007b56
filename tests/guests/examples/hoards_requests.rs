//! Posts `requests` (900) bodies of `bytes` (1 MiB) to the setting `url`, `parallel` (900) of them at once,
//! keeps `limit` (1000) bytes of each response, and rejects with how many had each result.

use signalbus_guest::{BulkResult, Outcome, Signal, config, http, plugin};
use signalbus_test_guests::setting;
use std::collections::BTreeMap;
use std::time::Duration;

fn send_all(signals: &[Signal]) -> BulkResult {
    let number = |name: &str, usual: usize| setting(name).unwrap_or(usual);
    let (url, bytes) = (config::get("url").unwrap_or_default(), number("bytes", 1 << 20));
    let timeout = Duration::from_millis(setting("timeout_ms").unwrap_or(5000));
    let request = |_| http::Request::post(url.as_str()).body(vec![b'x'; bytes]).timeout(timeout).limit(number("limit", 1000));
    let answers = http::send_all((0..number("requests", 900)).map(request), number("parallel", 900));
    let mut results: BTreeMap<String, u32> = BTreeMap::new();
    for answer in answers {
        let result =
            answer.map_or_else(|error| error.to_string(), |answer| format!("{}, {} bytes", answer.status, answer.body.len()));
        *results.entry(result).or_default() += 1;
    }
    Ok(vec![Outcome::reject(format!("{results:?}")); signals.len()])
}

plugin!(bulk send_all);
