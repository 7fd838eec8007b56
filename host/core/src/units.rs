//! Durations and sizes, as written in configuration files.

use std::time::Duration;

/// Parses a duration with its unit, such as `30s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = amount(text)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// Parses a size with its unit, such as `64MiB`, into bytes.
pub fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = amount(text)?;
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the amount is positive and bounded")]
    (number * factor <= 1e15).then_some((number * factor) as usize)
}

fn amount(text: &str) -> Option<(f64, &str)> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text[..text.len() - unit.len()].parse().ok()?;
    Some((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        for nonsense in ["", "30", "s", "-1s", "1 week", "1e9"] {
            assert_eq!(parse_duration(nonsense), None, "{nonsense}");
            assert_eq!(parse_size(nonsense), None, "{nonsense}");
        }
    }
}
