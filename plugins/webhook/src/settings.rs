//! The settings, as described in README.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub url: String,
    #[serde(default = "post")]
    pub method: String,
    pub columns: Option<Vec<String>>,
    pub body_column: Option<String>,
    pub content_type: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default = "parallel")]
    pub parallel: usize,
    #[serde(default)]
    pub timeout: Timeout,
    #[serde(default = "yes")]
    pub signed: bool,
}

fn post() -> String {
    "POST".to_owned()
}

fn parallel() -> usize {
    50
}

fn yes() -> bool {
    true
}

/// A duration: `"10s"`, `"500ms"`, `"1m"`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeout(pub Duration);

impl Default for Timeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| D::Error::custom("write \"500ms\", \"10s\", \"1m\" or a number of seconds"))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_or_are_seconds() {
        for (text, millis) in [("10s", 10_000), ("500ms", 500), ("1m", 60_000), ("3", 3_000), ("1.5", 1_500)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "0", "0s", "-1", "soon", "1 week"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
