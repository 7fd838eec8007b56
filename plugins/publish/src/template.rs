//! Texts with placeholders for columns: `orders.{region}`.
//!
//! An unknown column is found when a template is parsed, never when it is filled in.

use std::borrow::Cow;

use signalbus_guest::{Error, Result, Signal, Value};

/// A text in which `{column}`, `{signal.id}` and `{signal.type}` stand for values of a signal; `{{` and
/// `}}` stand for braces.
pub struct Template {
    parts: Vec<Part>,
    /// The setting's name, for error messages.
    setting: String,
}

enum Part {
    Text(String),
    /// Position of a column.
    Column(usize),
    Id,
    Type,
}

impl Template {
    /// Parses a template for signals like `like`.
    ///
    /// # Errors
    /// *Misconfigured*: a brace is unmatched, or the table does not have a column.
    pub fn new(setting: &str, text: &str, like: &Signal) -> Result<Self> {
        let fault = |what: &str| Error::misconfigured(format!("setting \"{setting}\": {what} in {text:?}"));
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
                return Err(fault("unmatched brace (write it twice for a literal brace)"));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(match name {
                "signal.id" => Part::Id,
                "signal.type" => Part::Type,
                _ => Part::Column(column(name, like).ok_or_else(|| fault(&unknown(name, like)))?),
            });
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts, setting: setting.to_owned() })
    }

    /// Returns the text for a signal; `None` if a column is NULL.
    ///
    /// # Errors
    /// *Reject*: a column contains bytes that are not text.
    pub fn fill<'a>(&'a self, signal: &'a Signal) -> Result<Option<Cow<'a, str>>> {
        if let [part] = self.parts.as_slice() {
            return self.piece(part, signal);
        }
        let mut text = String::new();
        for part in &self.parts {
            match self.piece(part, signal)? {
                Some(piece) => text.push_str(&piece),
                None => return Ok(None),
            }
        }
        Ok(Some(text.into()))
    }

    /// Returns the text for a signal, which must have one.
    ///
    /// # Errors
    /// *Reject*: a column is NULL, or contains bytes that are not text.
    pub fn require<'a>(&'a self, signal: &'a Signal) -> Result<Cow<'a, str>> {
        let none = || Error::reject(format!("setting \"{}\" needs a column that is NULL", self.setting));
        self.fill(signal)?.ok_or_else(none)
    }

    fn piece<'a>(&self, part: &'a Part, signal: &'a Signal) -> Result<Option<Cow<'a, str>>> {
        Ok(Some(match part {
            Part::Text(text) => text.into(),
            Part::Id => signal.id().into(),
            Part::Type => signal.type_name().into(),
            Part::Column(position) => match signal.cells().nth(*position) {
                None | Some((_, Value::Null)) => return Ok(None),
                Some((column, value)) => text(value).ok_or_else(|| {
                    Error::reject(format!(
                        "column \"{}\" contains bytes that are not text, but setting \"{}\" needs text",
                        column.name, self.setting
                    ))
                })?,
            },
        }))
    }
}

/// Returns a value as text; `None` if it is bytes that are not UTF-8.
pub fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Null => "".into(),
        Value::Boolean(value) => value.to_string().into(),
        Value::Int64(value) => value.to_string().into(),
        Value::Float64(value) => value.to_string().into(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.into(),
        other => other.as_text().unwrap_or_default().into(),
    })
}

/// Returns the position of a column.
pub fn column(name: &str, like: &Signal) -> Option<usize> {
    like.columns().iter().position(|column| column.name == name)
}

/// Says that a column is unknown, and which are known.
pub fn unknown(name: &str, like: &Signal) -> String {
    let known: Vec<&str> = like.columns().iter().map(|column| column.name.as_str()).collect();
    format!("unknown column \"{name}\" (known: {})", known.join(", "))
}
