//! Durations and sizes, as written in configuration files.
//!
//! A number without a unit must never be accepted. Next: `config` in `signalbus-relay`.

use std::time::Duration;

use bytesize::ByteSize;
use fundu::{CustomDurationParser, CustomTimeUnit, TimeUnit};

/// Units of durations; a day always has 24 hours.
const UNITS: [CustomTimeUnit<'_>; 5] = [
    CustomTimeUnit::with_default(TimeUnit::MilliSecond, &["ms"]),
    CustomTimeUnit::with_default(TimeUnit::Second, &["s"]),
    CustomTimeUnit::with_default(TimeUnit::Minute, &["m", "min"]),
    CustomTimeUnit::with_default(TimeUnit::Hour, &["h"]),
    CustomTimeUnit::with_default(TimeUnit::Day, &["d"]),
];

/// Parses a duration with its unit, such as `30s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let parser = CustomDurationParser::builder()
        .time_units(&UNITS)
        .disable_exponent()
        .disable_infinity()
        .allow_time_unit_delimiter()
        .build();
    // A bare number might mean anything.
    let text = text.ends_with(|c: char| c.is_ascii_alphabetic()).then_some(text)?;
    parser.parse(text).ok()?.try_into().ok()
}

/// Parses a size with its unit, such as `64MiB`, into bytes.
pub fn parse_size(text: &str) -> Option<usize> {
    // Whether "MB" means 1000² or 1024² bytes is a matter of taste, so it means nothing here.
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
    let size: ByteSize = text.parse().ok().filter(|_| ["B", "KiB", "MiB", "GiB"].contains(&unit))?;
    usize::try_from(size.as_u64()).ok().filter(|bytes| *bytes <= LARGEST)
}

/// No machine has more memory, in bytes.
const LARGEST: usize = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("10min"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("1 d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("1.5 GiB"), Some(3 << 29));
        assert_eq!(parse_size("12B"), Some(12));
        assert_eq!(parse_size("2000000GiB"), None);
        for nonsense in ["", "30", "s", "-1s", "1 week", "1e9", "1e9s", "infinity", "64MB", "64 mib"] {
            assert_eq!(parse_duration(nonsense), None, "{nonsense}");
            assert_eq!(parse_size(nonsense), None, "{nonsense}");
        }
    }
}
