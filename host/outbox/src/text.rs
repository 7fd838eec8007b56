//! Decoding of values that the database returns as text, in ISO form and UTC.
//!
//! Nothing may be rounded or dropped: a text that fits no case becomes `Other`. Next: the adapters,
//! which call it.

use super::table::Kind;
use signalbus_core::signal::Value;

/// Puts a text into its case, or into `Other` where it has no such form: `infinity`, years of more
/// than four digits, years before Christ, zero dates, times beyond the end of a day.
pub(super) fn value(kind: Kind, text: String) -> Value {
    match kind {
        Kind::Text | Kind::Padded => Value::Text(text),
        Kind::Json | Kind::Jsonb => Value::Json(text),
        Kind::Uuid => Value::Uuid(text),
        Kind::Decimal if is_decimal(&text) => Value::Decimal(text),
        Kind::Date if is_date(&text) => Value::Date(text),
        Kind::Time if is_time(&text) => Value::Time(text),
        Kind::Datetime => rfc3339(&text, "").map_or(Value::Other(text), Value::Datetime),
        Kind::Timestamp => {
            let utc = rfc3339(text.strip_suffix("+00").unwrap_or(&text), "Z");
            utc.map_or(Value::Other(text), Value::Timestamp)
        }
        _ => Value::Other(text),
    }
}

fn rfc3339(text: &str, offset: &str) -> Option<String> {
    let (date, time) = text.split_once(' ')?;
    (is_date(date) && is_time(time)).then(|| format!("{date}T{time}{offset}"))
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// `YYYY-MM-DD`, with no month and no day of zero.
fn is_date(text: &str) -> bool {
    is_like(text, "0000-00-00") && &text[5..7] != "00" && &text[8..] != "00"
}

/// `HH:MM:SS[.ffffff]`, up to 24:00:00.
fn is_time(text: &str) -> bool {
    let (time, fraction) = text.split_once('.').unwrap_or((text, "0"));
    is_like(time, "00:00:00")
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && (&time[..2] < "24" || time == "24:00:00" && fraction.bytes().all(|byte| byte == b'0'))
}

fn is_like(text: &str, pattern: &str) -> bool {
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, text: &str, expected: Value) {
        assert_eq!(value(kind, text.to_owned()), expected);
    }

    #[test]
    fn ordinary_values_are_rfc_3339() {
        check(Kind::Datetime, "2024-02-29 23:59:59.5", Value::Datetime("2024-02-29T23:59:59.5".into()));
        check(Kind::Timestamp, "2024-02-29 23:59:59+00", Value::Timestamp("2024-02-29T23:59:59Z".into()));
        check(Kind::Date, "2024-02-29", Value::Date("2024-02-29".into()));
        check(Kind::Time, "24:00:00.000000", Value::Time("24:00:00.000000".into()));
        check(Kind::Decimal, "-12.50", Value::Decimal("-12.50".into()));
    }

    #[test]
    fn what_has_no_such_form_stays_as_it_is() {
        for (kind, text) in [
            (Kind::Date, "infinity"),
            (Kind::Date, "0044-03-15 BC"),
            (Kind::Date, "0000-00-00"),
            (Kind::Date, "12024-01-01"),
            (Kind::Datetime, "-infinity"),
            (Kind::Timestamp, "0044-03-15 12:00:00+00 BC"),
            (Kind::Time, "-838:59:59"),
            (Kind::Time, "24:00:00.000001"),
            (Kind::Time, "24:19:22"),
            (Kind::Decimal, "NaN"),
            (Kind::Other, "{1,2}"),
        ] {
            check(kind, text, Value::Other(text.to_owned()));
        }
    }
}
