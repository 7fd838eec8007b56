//! Types of other crates that would not parse the relay's texts, or would round them.
//!
//! A value must be read exactly or not at all. `row` asks here before it reads a value by itself.

use crate::Value;
use crate::fault::Fault;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::any::TypeId;
use std::fmt;

/// A value in the form that the type's own `Deserialize` accepts.
pub(crate) type Form = serde_json::Value;

/// Returns the value's form for the visitor's type; `None` if it accepts the value as it is.
pub(crate) fn form<V>(value: &Value) -> Result<Option<Form>, Fault> {
    match value {
        #[cfg(feature = "decimal")]
        // The shortest text that reads back equal.
        Value::Float64(value) if decimal::asks::<V>() => decimal::form(&value.to_string()),
        Value::Json(_) => Ok(None),
        other => other.as_text().map_or(Ok(None), text_form::<V>),
    }
}

fn text_form<V>(text: &str) -> Result<Option<Form>, Fault> {
    #[cfg(feature = "decimal")]
    if decimal::asks::<V>() {
        return decimal::form(text);
    }
    #[cfg(feature = "time")]
    return time::form::<V>(text);
    #[cfg(not(feature = "time"))]
    Ok(None)
}

/// Returns whether the visitor belongs to the type's own `Deserialize`, not to a `with` attribute.
fn is<T: DeserializeOwned, V>() -> bool {
    T::deserialize(Probe).is_err_and(|asker| asker.0 == Some(typeid::of::<V>()))
}

/// A deserializer that returns the type of its visitor instead of a value.
struct Probe;

#[derive(Debug)]
struct Asker(Option<TypeId>);

impl<'de> Deserializer<'de> for Probe {
    type Error = Asker;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asker> {
        Err(Asker(Some(typeid::of::<V>())))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl de::Error for Asker {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("nothing is read")
    }
}

impl std::error::Error for Asker {}

fn unfit(expected: &str) -> Fault {
    Fault::Mismatch { expected: expected.to_owned(), found: String::new() }
}

#[cfg(feature = "decimal")]
mod decimal {
    use super::{Fault, Form, is, unfit};
    use rust_decimal::Decimal;

    pub fn asks<V>() -> bool {
        is::<Decimal, V>()
    }

    /// Refuses numbers with too many digits, which the type itself would round.
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

    /// Converts RFC 3339 texts, since the crate itself accepts only forms of its own.
    pub fn form<V>(text: &str) -> Result<Option<Form>, Fault> {
        if is::<Date, V>() {
            read("a date, YYYY-MM-DD", moment(&format!("{text}T00:00:00Z")).map(OffsetDateTime::date))
        } else if is::<Time, V>() {
            read("a time of day, HH:MM:SS", moment(&format!("1970-01-01T{text}Z")).map(OffsetDateTime::time))
        } else if is::<PrimitiveDateTime, V>() {
            // SQLite has a space in place of RFC 3339's T.
            let moment = moment(&format!("{}Z", text.replacen(' ', "T", 1)));
            let local = moment.map(|moment| PrimitiveDateTime::new(moment.date(), moment.time()));
            read("a date and time without offset, YYYY-MM-DDTHH:MM:SS", local)
        } else if is::<OffsetDateTime, V>() {
            read(TIMESTAMP, moment(text))
        } else if is::<UtcDateTime, V>() {
            read(TIMESTAMP, moment(text).map(OffsetDateTime::to_utc))
        } else {
            Ok(None)
        }
    }

    const TIMESTAMP: &str = "a timestamp with offset, as in RFC 3339";

    /// Parses RFC 3339, the only well-known format that accepts exactly these texts.
    fn moment(text: &str) -> Result<OffsetDateTime, Parse> {
        OffsetDateTime::parse(text, &Rfc3339)
    }

    /// Serializes a value into the form that the crate itself accepts.
    fn read<T: Serialize>(expected: &str, parsed: Result<T, Parse>) -> Result<Option<Form>, Fault> {
        let value = parsed.map_err(|_| unfit(expected))?;
        serde_json::to_value(value).map(Some).map_err(Fault::custom)
    }
}
