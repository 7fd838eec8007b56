//! Types of other crates that would not read the relay's texts, or would round them.
//!
//! Such a type asks serde for any value, and does not say who asks: it is told by its identity.

use crate::Value;
use crate::fault::Fault;
use std::any::TypeId;

/// A value in the form that the wanted type's own `Deserialize` reads.
pub(crate) type Form = serde_json::Value;

/// The value's form for the wanted type; none where the type reads the value as it is.
pub(crate) fn form<Wanted>(value: &Value) -> Result<Option<Form>, Fault> {
    match value {
        #[cfg(feature = "decimal")]
        // The shortest text that reads back equal.
        Value::Float64(value) if decimal::is_wanted::<Wanted>() => decimal::form(&value.to_string()),
        Value::Json(_) => Ok(None),
        other => other.as_text().map_or(Ok(None), text_form::<Wanted>),
    }
}

fn text_form<Wanted>(text: &str) -> Result<Option<Form>, Fault> {
    #[cfg(feature = "decimal")]
    if decimal::is_wanted::<Wanted>() {
        return decimal::form(text);
    }
    #[cfg(feature = "time")]
    return time::form::<Wanted>(text);
    #[cfg(not(feature = "time"))]
    Ok(None)
}

fn is<T: 'static, Wanted>() -> bool {
    typeid::of::<Wanted>() == TypeId::of::<T>()
}

fn unfit(expected: &str) -> Fault {
    Fault::Mismatch { expected: expected.to_owned(), found: String::new() }
}

#[cfg(feature = "decimal")]
pub(crate) mod decimal {
    use super::{Fault, Form, is, unfit};
    use rust_decimal::Decimal;

    pub fn is_wanted<Wanted>() -> bool {
        is::<Decimal, Wanted>()
    }

    /// By itself the type rounds what has too many digits.
    pub fn form(text: &str) -> Result<Option<Form>, Fault> {
        match Decimal::from_str_exact(text) {
            Ok(_) => Ok(Some(text.into())),
            Err(_) => Err(unfit("a number that Decimal holds exactly")),
        }
    }
}

#[cfg(feature = "time")]
mod time {
    use super::{Fault, Form, is, unfit};
    use serde::de::Error as _;
    use serde::ser::Serialize;
    use time::error::Parse;
    use time::format_description::well_known::Rfc3339;
    use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcDateTime};

    /// By itself the crate reads forms of its own only.
    pub fn form<Wanted>(text: &str) -> Result<Option<Form>, Fault> {
        if is::<Date, Wanted>() {
            read("a date, YYYY-MM-DD", moment(&format!("{text}T00:00:00Z")).map(OffsetDateTime::date))
        } else if is::<Time, Wanted>() {
            read("a time of day, HH:MM:SS", moment(&format!("1970-01-01T{text}Z")).map(OffsetDateTime::time))
        } else if is::<PrimitiveDateTime, Wanted>() {
            // SQLite has a blank where RFC 3339 has a T.
            let moment = moment(&format!("{}Z", text.replacen(' ', "T", 1)));
            let local = moment.map(|moment| PrimitiveDateTime::new(moment.date(), moment.time()));
            read("a date and time without offset, YYYY-MM-DDTHH:MM:SS", local)
        } else if is::<OffsetDateTime, Wanted>() {
            read(TIMESTAMP, moment(text))
        } else if is::<UtcDateTime, Wanted>() {
            read(TIMESTAMP, moment(text).map(OffsetDateTime::to_utc))
        } else {
            Ok(None)
        }
    }

    const TIMESTAMP: &str = "a timestamp with offset, as in RFC 3339";

    /// This format alone takes nothing more and nothing less.
    fn moment(text: &str) -> Result<OffsetDateTime, Parse> {
        OffsetDateTime::parse(text, &Rfc3339)
    }

    /// What the crate writes, it reads.
    fn read<T: Serialize>(expected: &str, parsed: Result<T, Parse>) -> Result<Option<Form>, Fault> {
        let value = parsed.map_err(|_| unfit(expected))?;
        serde_json::to_value(value).map(Some).map_err(Fault::custom)
    }
}
