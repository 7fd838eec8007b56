//! Values of columns. `row` reads them into the author's types.

use crate::Value;
use crate::json;
use serde::ser::{Serialize, Serializer};

impl Value {
    /// Returns the name of the value's case in the contract, e.g. `int64` or `decimal`.
    pub fn case(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Int64(_) => "int64",
            Self::Float64(_) => "float64",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Json(_) => "json",
            Self::Uuid(_) => "uuid",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::Datetime(_) => "datetime",
            Self::Timestamp(_) => "timestamp",
            Self::Other(_) => "other",
        }
    }

    /// Returns the text of a value that is passed as text; `None` for null, boolean, int64, float64 and
    /// bytes.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Decimal(text)
            | Self::Text(text)
            | Self::Json(text)
            | Self::Uuid(text)
            | Self::Date(text)
            | Self::Time(text)
            | Self::Datetime(text)
            | Self::Timestamp(text)
            | Self::Other(text) => Some(text),
            Self::Null | Self::Boolean(_) | Self::Int64(_) | Self::Float64(_) | Self::Bytes(_) => None,
        }
    }

    /// Returns whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Describes the value for an error message, without texts, since they may be private.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Boolean(value) => format!("boolean {value}"),
            Self::Int64(value) => format!("int64 {value}"),
            other => other.case().to_owned(),
        }
    }
}

/// Serializes as JSON: decimals and other texts as strings, bytes as base64, JSON columns unchanged, and
/// floats that JSON lacks as `"NaN"`, `"inf"`, `"-inf"`.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Int64(value) => serializer.serialize_i64(*value),
            Self::Float64(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Float64(value) => serializer.collect_str(value),
            Self::Bytes(bytes) => serializer.collect_str(&json::Base64(bytes)),
            Self::Json(text) => json::embed(text, serializer),
            other => serializer.serialize_str(other.as_text().unwrap_or_default()),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int64(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float64(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// `None` is SQL NULL.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
