//! SQL values as JSON, for files that people write and read.
//!
//! Nothing is rounded: what is written is read back as the same value. `file` reads them, `plugin test`
//! shows them.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json as object;
use serde_json::value::RawValue;

use signalbus_core::signal::Value;

/// Parses a value: plain JSON where that is enough (`1`, `0.5`, `"text"`, `true`, `null`), else an
/// object with the name of the type: `{"decimal": "12.50"}`, `{"bytes": "AP8="}` (base64). Any other
/// object, and any list, is a JSON document. Numbers are never rounded.
///
/// # Errors
/// If the value does not have the type that it names, or does not fit in 64 bits.
pub fn parse(json: &RawValue) -> Result<Value, String> {
    let text = json.get();
    Ok(match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't' | b'f') => Value::Boolean(text == "true"),
        Some(b'"') => Value::Text(string(text)?),
        Some(b'[') => Value::Json(compact(text)),
        Some(b'{') => {
            let Fields(fields) = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let typed = if let [(kind, value)] = fields.as_slice() { typed(kind, value.get())? } else { None };
            typed.unwrap_or_else(|| Value::Json(compact(text)))
        }
        _ => number(text)?,
    })
}

fn number(text: &str) -> Result<Value, String> {
    let beyond = |what: &str| format!("{text} does not fit in {what}; write {{\"decimal\": \"{text}\"}}");
    if text.contains(['.', 'e', 'E']) {
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        return value.map(Value::Float64).ok_or_else(|| beyond("a 64-bit float"));
    }
    text.parse().map(Value::Int64).map_err(|_| beyond("64 bits"))
}

fn string(text: &str) -> Result<String, String> {
    // The error must not quote the text, which may be a secret.
    serde_json::from_str(text).map_err(|error| format!("invalid string: {error}"))
}

/// Parses a value with the name of its type; `None` if there is no such type.
fn typed(kind: &str, value: &str) -> Result<Option<Value>, String> {
    let text = plain(value)?;
    // On one line and quoted in the same way, however it is written.
    let written = if value.starts_with('"') { serde_json::Value::from(text.as_str()).to_string() } else { text.clone() };
    let wrong = |what: &str| format!("invalid {what} {{\"{kind}\": {written}}}");
    Ok(Some(match kind {
        "boolean" => Value::Boolean(text.parse().map_err(|_| wrong("boolean"))?),
        "int64" => Value::Int64(text.parse().map_err(|_| wrong("64-bit integer"))?),
        "float64" => Value::Float64(text.parse().map_err(|_| wrong("number"))?),
        "bytes" => Value::Bytes(STANDARD.decode(&text).map_err(|_| wrong("base64"))?),
        "decimal" if !is_decimal(&text) => return Err(wrong("number")),
        "decimal" => Value::Decimal(text),
        "text" => Value::Text(text),
        "json" if serde_json::from_str::<IgnoredAny>(&text).is_err() => return Err(wrong("JSON document")),
        "json" => Value::Json(text),
        "uuid" => Value::Uuid(text),
        "date" => Value::Date(text),
        "time" => Value::Time(text),
        "datetime" => Value::Datetime(text),
        "timestamp" => Value::Timestamp(text),
        "other" => Value::Other(text),
        _ => return Ok(None),
    }))
}

/// Whether the text is a decimal number, or one of PostgreSQL's special values.
fn is_decimal(text: &str) -> bool {
    fn unsigned(text: &str) -> &str {
        text.strip_prefix(['-', '+']).unwrap_or(text)
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = unsigned(number).split_once('.').unwrap_or((unsigned(number), ""));
    let is_number = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let is_exponent = digits(unsigned(exponent)) && !unsigned(exponent).is_empty();
    is_number && is_exponent || ["NaN", "Infinity", "-Infinity"].contains(&text)
}

/// Returns a string without its quotes, and any other JSON as it is written.
pub(super) fn plain(json: &str) -> Result<String, String> {
    if json.starts_with('"') { string(json) } else { Ok(compact(json)) }
}

/// Removes whitespace from a document, and leaves numbers as they are written.
fn compact(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let stays = |c: &char| {
        match (quoted, escaped, *c) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => quoted = !quoted,
            (false, _, c) => return !c.is_ascii_whitespace(),
            _ => {}
        }
        true
    };
    json.chars().filter(stays).collect()
}

/// A JSON object with its keys in order, and its values as they are written.
pub(super) struct Fields<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Entries<'a> {
            type Value = Fields<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a row: an object of columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Fields(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Writes a value such that [`parse`] reads it back.
pub fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Boolean(value) => object!(value),
        Value::Int64(value) => object!(value),
        Value::Float64(value) if value.is_finite() => object!(value),
        Value::Float64(value) => object!({ "float64": value.to_string() }),
        Value::Text(text) => object!(text),
        Value::Bytes(bytes) => object!({ "bytes": STANDARD.encode(bytes) }),
        Value::Decimal(text) => object!({ "decimal": text }),
        Value::Json(text) => object!({ "json": text }),
        Value::Uuid(text) => object!({ "uuid": text }),
        Value::Date(text) => object!({ "date": text }),
        Value::Time(text) => object!({ "time": text }),
        Value::Datetime(text) => object!({ "datetime": text }),
        Value::Timestamp(text) => object!({ "timestamp": text }),
        Value::Other(text) => object!({ "other": text }),
    }
}

/// The plain text of a value; empty for NULL.
pub(super) fn text(value: &Value) -> String {
    match json(value) {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        // An object with the name of the type.
        serde_json::Value::Object(typed) => typed.values().filter_map(serde_json::Value::as_str).collect(),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_round_trip() {
        let values = [
            Value::Null,
            Value::Boolean(true),
            Value::Int64(i64::MIN),
            Value::Float64(0.1),
            Value::Float64(5.0),
            Value::Float64(f64::NEG_INFINITY),
            Value::Decimal("79228162514264337593543950336.0001".into()),
            Value::Text("a\0b".into()),
            Value::Bytes(vec![0, 255]),
            Value::Json("{\"text\": 1}".into()),
            Value::Uuid("0198c7a4-0000-7000-8000-000000000001".into()),
            Value::Date("2026-02-28".into()),
            Value::Time("23:59:59".into()),
            Value::Datetime("2026-02-28T23:59:59".into()),
            Value::Timestamp("2026-02-28T23:59:59Z".into()),
            Value::Other("{1,2}".into()),
        ];
        for value in values {
            let text = json(&value).to_string();
            assert_eq!(parsed(&text), Ok(value), "{text}");
        }
    }

    fn parsed(text: &str) -> Result<Value, String> {
        parse(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn json_documents_need_no_type_name() {
        assert_eq!(parsed(r#"{"sku": "A-1"}"#), Ok(Value::Json(r#"{"sku":"A-1"}"#.into())));
        assert_eq!(parsed(r"[1, null]"), Ok(Value::Json("[1,null]".into())));
        assert_eq!(parsed(r#"{"json": [1, {"b": " \" ", "a": ""}]}"#), Ok(Value::Json(r#"[1,{"b":" \" ","a":""}]"#.into())));
        assert_eq!(parsed("\"a \\\" \\u00e9\""), Ok(Value::Text("a \" é".into())));
    }

    #[test]
    fn numbers_are_not_rounded() {
        assert_eq!(parsed("1e300"), Ok(Value::Float64(1e300)));
        assert_eq!(parsed("-9223372036854775808"), Ok(Value::Int64(i64::MIN)));
        assert_eq!(parsed(r#"{"decimal": 12.50}"#), Ok(Value::Decimal("12.50".into())));
        assert_eq!(parsed(r#"{"decimal": 18446744073709551616}"#), Ok(Value::Decimal("18446744073709551616".into())));
        let document = r#"{"a":[18446744073709551616,1.10]}"#;
        assert_eq!(parsed(document), Ok(Value::Json(document.into())));
        for integer in ["9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809"] {
            let fault = format!("{integer} does not fit in 64 bits; write {{\"decimal\": \"{integer}\"}}");
            assert_eq!(parsed(integer), Err(fault));
        }
        assert!(parsed("1e999").unwrap_err().starts_with("1e999 does not fit in a 64-bit float"));
    }

    #[test]
    fn invalid_values_are_explained() {
        assert_eq!(parsed(r#"{"bytes": "?"}"#).unwrap_err(), "invalid base64 {\"bytes\": \"?\"}");
        assert_eq!(parsed(r#"{"int64": 1.5}"#).unwrap_err(), "invalid 64-bit integer {\"int64\": 1.5}");
        assert_eq!(parsed(r#"{"json": "{bad"}"#).unwrap_err(), "invalid JSON document {\"json\": \"{bad\"}");
        assert_eq!(
            parsed("{\"int64\":\n {\"a\":\n [1,\n 2]}}").unwrap_err(),
            "invalid 64-bit integer {\"int64\": {\"a\":[1,2]}}"
        );
        for text in ["abc", "", "-", ".", "1.2.3", "1e", "1e5e5", "e5", " 1", "1,5", "--1", "nan", "inf", "٣"] {
            let fault = format!("invalid number {{\"decimal\": \"{text}\"}}");
            assert_eq!(parsed(&format!("{{\"decimal\": \"{text}\"}}")), Err(fault));
        }
        for text in ["0", "-12.50", "+1", ".5", "5.", "1e5", "1.5E-300", "NaN", "Infinity", "-Infinity"] {
            assert_eq!(parsed(&format!("{{\"decimal\": \"{text}\"}}")), Ok(Value::Decimal(text.into())));
        }
    }
}
