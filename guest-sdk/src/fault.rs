//! What can go wrong while a value becomes the author's type.

use serde::de::{self, Expected, Unexpected};
use std::fmt::{self, Display};

/// A failed conversion that does not know yet where it happened.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The author's type has a field that nothing fills.
    Missing(&'static str),
    /// The value is of another type, or out of the type's range.
    Mismatch { expected: String, found: String },
    /// The author's type has no such field, and takes no others.
    Unknown { field: String, known: String },
    /// Anything else, in the words of the author's type.
    Said(String),
    /// Already complete.
    Placed(String),
}

impl Fault {
    /// Says where it happened, and what was found there.
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

/// The names, quoted and separated by commas.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}
