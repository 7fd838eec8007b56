//! URLs with placeholders for columns: `https://shop.example/customers/{customer}/orders`.
//!
//! A value must never change the structure of the URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use signalbus_guest::{Signal, Value};

/// All characters except those that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A URL, split at its placeholders.
#[derive(Debug, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Column(String),
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (column, after) = after.split_once('}').ok_or("setting \"url\" has a \"{\" without a matching \"}\"")?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Column(column.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Column(column) => Some(column.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Returns the URL for a signal, or why there can be none.
    pub fn fill_in(&self, signal: &Signal) -> Result<String, String> {
        let mut url = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => url += text,
                Piece::Column(column) => {
                    let value = signal.value(column).and_then(text).unwrap_or_default();
                    // Dot segments would change the path, even encoded.
                    if matches!(value.as_str(), "" | "." | "..") {
                        return Err(format!("column \"{column}\" has no value that can be part of the URL"));
                    }
                    url.extend(utf8_percent_encode(&value, SEGMENT));
                }
            }
        }
        Ok(url)
    }
}

/// Returns a value as text, if it has a text form.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bytes(_) => None,
        Value::Boolean(value) => Some(value.to_string()),
        Value::Int64(value) => Some(value.to_string()),
        Value::Float64(value) => Some(value.to_string()),
        other => other.as_text().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, value: impl Into<Value>) -> Result<String, String> {
        let signal = Signal::builder("T").column("c", value).build();
        Template::parse(template)?.fill_in(&signal)
    }

    #[test]
    fn values_stay_within_their_segment() {
        assert_eq!(filled("https://a/x", 1).unwrap(), "https://a/x");
        assert_eq!(filled("https://a/{c}/b?c={c}", 7).unwrap(), "https://a/7/b?c=7");
        assert_eq!(filled("https://a/{c}", "a/b?c#d%e f&g=é@:").unwrap(), "https://a/a%2Fb%3Fc%23d%25e%20f%26g%3D%C3%A9%40%3A");
        assert_eq!(filled("https://a/{c}", "a.b-c_d~e").unwrap(), "https://a/a.b-c_d~e");
    }

    #[test]
    fn values_that_would_change_the_path_are_refused() {
        for value in [Value::Null, "".into(), ".".into(), "..".into(), Value::Bytes(vec![1])] {
            let error = filled("https://a/{c}/x", value).unwrap_err();
            assert_eq!(error, "column \"c\" has no value that can be part of the URL");
        }
    }

    #[test]
    fn unmatched_braces_are_refused() {
        assert_eq!(Template::parse("https://a/{c").unwrap_err(), "setting \"url\" has a \"{\" without a matching \"}\"");
    }
}
