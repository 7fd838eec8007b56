//! Errors while a value is read into the author's type.
//!
//! A text that may be private must never appear in them. `row` and `config` add the location.

use serde::de::{self, Expected, Unexpected};
use std::fmt::{self, Display};

/// A failed conversion, usually without its location yet.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A required field of the author's type has no value.
    Missing(&'static str),
    /// The value has another type, or is out of range.
    Mismatch { expected: String, found: String },
    /// The author's type has no such field, and denies unknown fields.
    Unknown { field: String, known: String },
    /// Any other error, with the message of the author's type.
    Said(String),
    /// A complete message, with its location.
    Placed(String),
}

impl Fault {
    /// Adds where it happened, and what was found there.
    pub(crate) fn at(self, place: &str, found: &str) -> Self {
        Self::Placed(match self {
            Self::Mismatch { expected, .. } => {
                format!("{place}: expected {expected}, found {found}")
            }
            Self::Placed(text) => text,
            other => format!("{place}: {other}"),
        })
    }
}

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(out, "\"{field}\" is missing"),
            Self::Mismatch { expected, found } => write!(out, "expected {expected}, found {found}"),
            Self::Unknown { field, known } => {
                write!(out, "\"{field}\" is unknown, expected {known}")
            }
            Self::Said(text) | Self::Placed(text) => out.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::Said(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Mismatch { expected: expected.to_string(), found: found.to_string() }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::Mismatch { expected: quoted(known), found: format!("\"{variant}\"") }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown { field: field.to_owned(), known: quoted(known) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// Joins names, quoted and separated by commas.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}
