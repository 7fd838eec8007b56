//! Reads rows into the author's own types.
//!
//! A value must be read exactly or not at all, and never appear in an error. `foreign` handles types of
//! other crates; `fault` words the errors.

use crate::fault::{Fault, quoted};
use crate::{Column, Signal, Value};
use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;
use std::iter::Zip;
use std::slice;

/// A column could not be read as the requested type.
///
/// The message names the column, its database type, what was expected and what was found:
/// `column "total" of type "numeric": expected i64, found decimal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError(String);

impl RowError {
    pub(crate) fn missing(column: &str, signal: &Signal) -> Self {
        let known: Vec<_> = signal.columns().iter().map(|known| &known.name).collect();
        let known = quoted(&known);
        Self(format!("column \"{column}\" is not in the row, which has {known}"))
    }

    pub(crate) fn from_fault(fault: Fault, signal: &Signal) -> Self {
        match fault {
            Fault::Missing(column) => Self::missing(column, signal),
            other => Self(other.to_string()),
        }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for RowError {}

type Cells<'de> = Zip<slice::Iter<'de, Column>, slice::Iter<'de, Value>>;

/// Deserializes a row as a map from column names, or as a sequence in column order.
pub(crate) struct RowDeserializer<'de>(pub &'de Signal);

struct Row<'de> {
    cells: Cells<'de>,
    pending: Option<Cell<'de>>,
}

impl<'de> Row<'de> {
    fn from_signal(signal: &'de Signal) -> Self {
        Self { cells: signal.cells(), pending: None }
    }
}

impl<'de> Deserializer<'de> for RowDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Row::from_signal(self.0))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Row::from_signal(self.0))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Row<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((column, value)) = self.cells.next() else {
            return Ok(None);
        };
        self.pending = Some(Cell { column, value });
        seed.deserialize(BorrowedStrDeserializer::new(&column.name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.pending.take() {
            Some(cell) => cell.read(seed),
            None => Err(Fault::custom("a value was requested before its column")),
        }
    }
}

impl<'de> SeqAccess<'de> for Row<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((column, value)) = self.cells.next() else {
            return Ok(None);
        };
        Cell { column, value }.read(seed).map(Some)
    }
}

/// One value and its column.
pub(crate) struct Cell<'de> {
    pub column: &'de Column,
    pub value: &'de Value,
}

impl<'de> Cell<'de> {
    pub fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(ValueDeserializer(self.value)).map_err(|fault| {
            let Column { name, db_type } = self.column;
            let place = format!("column \"{name}\" of type \"{db_type}\"");
            fault.at(&place, &self.value.describe())
        })
    }
}

/// Deserializes one value, exactly or not at all: nothing is rounded, and only numbers in the database
/// are read as numbers.
struct ValueDeserializer<'de>(&'de Value);

/// Reads integers, including those that are decimals because they exceed 64 bits signed.
macro_rules! integers {
    ($($method:ident $visit:ident $integer:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.0 {
                Value::Decimal(text) => match text.parse::<$integer>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => self.deserialize_any(visitor),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

/// Reads lists and maps, which only JSON columns and bytes can be.
macro_rules! nested {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Fault> {
            match self.0 {
                Value::Json(text) => from_json(text, |json| json.$method($($argument,)* visitor)),
                Value::Bytes(bytes) => SeqDeserializer::new(bytes.iter().copied()).deserialize_any(visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

fn from_json<'de, T>(
    text: &'de str,
    read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'de>>) -> serde_json::Result<T>,
) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_str(text);
    read(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|error| Fault::Said(discreet(error.to_string())))
}

/// Removes the text that was found from a message, since it may be private.
fn discreet(message: String) -> String {
    match (message.find(" \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) => format!("{}{}", &message[..start], &message[end + 1..]),
        _ => message,
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        #[cfg(any(feature = "decimal", feature = "time"))]
        if let Some(form) = crate::foreign::form::<V>(self.0)? {
            return form.deserialize_any(visitor).map_err(Fault::custom);
        }
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Int64(value) => visitor.visit_i64(*value),
            Value::Float64(value) => visitor.visit_f64(*value),
            Value::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::Json(text) => from_json(text, |json| json.deserialize_any(visitor)),
            other => visitor.visit_borrowed_str(other.as_text().unwrap_or_default()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Reads booleans, including 0 and 1, which MySQL and SQLite use for lack of booleans.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Int64(0) => visitor.visit_bool(false),
            Value::Int64(1) => visitor.visit_bool(true),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // Integers up to 2^53 are exact in an f64.
        const EXACT: u64 = 1 << 53;
        match self.0 {
            Value::Int64(value) if value.unsigned_abs() > EXACT => {
                Err(Fault::Mismatch { expected: "an integer that f64 holds exactly".to_owned(), found: String::new() })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// Reads text; for a JSON column this is the document itself.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Json(text) => visitor.visit_borrowed_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Json(text) => from_json(text, |json| json.deserialize_enum(name, variants, visitor)),
            other => match other.as_text() {
                Some(text) => visitor.visit_enum(text.into_deserializer()),
                None => self.deserialize_any(visitor),
            },
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
    }

    nested! {
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }

    forward_to_deserialize_any! {
        f32 char bytes byte_buf unit unit_struct identifier ignored_any
    }
}
