//! Fields with types of other crates, read from values of the relay.

use super::rows::{json, one, reads, refuses};
use crate::Value;

fn decimal(text: &str) -> Value {
    Value::Decimal(text.into())
}

#[test]
fn decimals_are_exact_or_refused() {
    use rust_decimal::Decimal;
    let number = |text| Decimal::from_str_exact(text).unwrap();
    for text in ["12.50", "-0.01", "79228162514264337593543950335", "0.0000000000000000000000000001"] {
        reads(decimal(text), number(text));
        reads(decimal(text), Some(number(text)));
    }
    assert_eq!(one(decimal("12.50")).get::<Decimal>("c").unwrap().to_string(), "12.50");
    reads(Value::Null, None::<Decimal>);
    reads(i64::MIN, Decimal::from(i64::MIN));
    reads(0.1, number("0.1"));
    reads(0.300_000_000_000_000_04, number("0.30000000000000004"));
    reads(1e-7, number("0.0000001"));
    reads("12.50", number("12.50"));
    reads(json("[12.5]"), vec![number("12.5")]);
    let exact = "expected a number that Decimal holds exactly";
    refuses::<Decimal>(decimal("79228162514264337593543950335.0001"), &format!("{exact}, found decimal"));
    refuses::<Decimal>(decimal("0.00000000000000000000000000001"), &format!("{exact}, found decimal"));
    refuses::<Decimal>(Value::Other("NaN".into()), &format!("{exact}, found other"));
    refuses::<Decimal>(1e300, &format!("{exact}, found float64"));
    refuses::<Decimal>(f64::NAN, &format!("{exact}, found float64"));
    refuses::<Decimal>(true, "expected a Decimal type representing a fixed-point number, found boolean true");
}

#[test]
fn uuids_read_from_text_and_from_their_bytes() {
    use uuid::Uuid;
    let id = Uuid::from_u128(0x0198_c7a4_0000_7000_8000_0000_0000_0001);
    reads(Value::Uuid("0198c7a4-0000-7000-8000-000000000001".into()), id);
    reads("0198c7a4-0000-7000-8000-000000000001", Some(id));
    reads(id.as_bytes().to_vec(), id);
    let error = one("0198").get::<Uuid>("c").unwrap_err().to_string();
    assert!(error.starts_with("column \"c\" of type \"kind\": UUID parsing failed: "), "{error}");
}

fn date(text: &str) -> Value {
    Value::Date(text.into())
}

fn time_of_day(text: &str) -> Value {
    Value::Time(text.into())
}

fn datetime(text: &str) -> Value {
    Value::Datetime(text.into())
}

fn timestamp(text: &str) -> Value {
    Value::Timestamp(text.into())
}

mod time {
    use super::*;
    use ::time::format_description::well_known::Rfc3339;
    use ::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcDateTime};

    fn day() -> Date {
        Date::from_calendar_date(2024, Month::February, 29).unwrap()
    }

    fn noon() -> Time {
        Time::from_hms(12, 0, 0).unwrap()
    }

    #[test]
    fn dates_and_times_are_read_exactly() {
        let late = Time::from_hms_micro(23, 59, 59, 999_999).unwrap();
        reads(date("2024-02-29"), day());
        reads(date("2024-02-29"), Some(day()));
        reads(Value::Null, None::<Date>);
        reads(time_of_day("23:59:59.999999"), late);
        reads(time_of_day("12:00:00"), noon());
        reads(datetime("2024-02-29T12:00:00"), PrimitiveDateTime::new(day(), noon()));
        reads(datetime("2024-02-29T23:59:59.999999"), PrimitiveDateTime::new(day(), late));
        reads("2024-02-29 12:00:00", PrimitiveDateTime::new(day(), noon()));
    }

    #[test]
    fn timestamps_keep_their_offset() {
        for text in ["2024-02-29T12:00:00Z", "2024-02-29T23:59:59.123456+02:00", "0001-01-01T00:00:00-03:30"] {
            let moment = OffsetDateTime::parse(text, &Rfc3339).unwrap();
            reads(timestamp(text), moment);
            reads(timestamp(text), Some(moment));
            let read = one(timestamp(text)).get::<OffsetDateTime>("c").unwrap();
            assert_eq!(read.offset(), moment.offset(), "{text}");
        }
        reads(timestamp("2024-02-29T14:00:00+02:00"), UtcDateTime::new(day(), noon()));
    }

    #[test]
    fn other_texts_are_refused() {
        refuses::<Date>(date("2023-02-29"), "expected a date, YYYY-MM-DD, found date");
        refuses::<Date>(timestamp("2024-02-29T12:00:00Z"), "expected a date, YYYY-MM-DD, found timestamp");
        refuses::<Date>(datetime("2024-02-29T12:00:00"), "expected a date, YYYY-MM-DD, found datetime");
        refuses::<Date>(Value::Other("infinity".into()), "expected a date, YYYY-MM-DD, found other");
        refuses::<Date>(7, "expected a `Date`, found int64 7");
        refuses::<Date>(Value::Null, "expected a `Date`, found null");
        refuses::<Time>(time_of_day("24:00:00"), "expected a time of day, HH:MM:SS, found time");
        refuses::<Time>("12:00:00+02:00", "expected a time of day, HH:MM:SS, found text");
        let without = "expected a date and time without offset, YYYY-MM-DDTHH:MM:SS";
        refuses::<PrimitiveDateTime>(timestamp("2024-02-29T12:00:00Z"), &format!("{without}, found timestamp"));
        let with = "expected a timestamp with offset, as in RFC 3339";
        refuses::<OffsetDateTime>(datetime("2024-02-29T12:00:00"), &format!("{with}, found datetime"));
        refuses::<UtcDateTime>("yesterday", &format!("{with}, found text"));
    }
}

#[test]
fn chrono_types_are_read_by_their_own_deserialize() {
    use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Utc};
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let late = NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap();
    let text = "2024-02-29T23:59:59.999999+02:00";
    let moment = DateTime::parse_from_rfc3339(text).unwrap();
    reads(date("2024-02-29"), Some(day));
    reads(time_of_day("23:59:59.999999"), late);
    reads(datetime("2024-02-29T23:59:59.999999"), day.and_time(late));
    reads::<DateTime<FixedOffset>>(timestamp(text), moment);
    reads(timestamp(text), moment.with_timezone(&Utc));
    for wrong in [date("2023-02-29"), datetime("2024-02-29T12:00:00")] {
        let error = one(wrong).get::<DateTime<Utc>>("c").unwrap_err().to_string();
        assert!(error.starts_with("column \"c\" of type \"kind\": "), "{error}");
    }
    let error = one("soon").get::<NaiveDateTime>("c").unwrap_err().to_string();
    assert!(error.starts_with("column \"c\" of type \"kind\": "), "{error}");
}
