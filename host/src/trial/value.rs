//! SQL values as JSON, for files that people write and read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json as object;

use crate::signal::Value;

/// Reads a value: plain JSON where it says enough (`1`, `0.5`, `"text"`, `true`, `null`), else an
/// object with the type's name: `{"decimal": "12.50"}`, `{"bytes": "AP8="}` (base64). Any other
/// object, and any list, is a JSON document.
///
/// # Errors
/// What is wrong with it.
pub fn parse(json: &serde_json::Value) -> Result<Value, String> {
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(value) => Value::Int64(value),
            None if number.is_f64() => Value::Float64(number.as_f64().unwrap_or(f64::NAN)),
            None => return Err(format!("{number} does not fit 64 bits; write {{\"decimal\": \"{number}\"}}")),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(_) => Value::Json(json.to_string()),
        serde_json::Value::Object(fields) => {
            let mut entries = fields.iter();
            match (entries.next(), entries.next()) {
                (Some((kind, value)), None) => typed(kind, value)?.unwrap_or_else(|| Value::Json(json.to_string())),
                _ => Value::Json(json.to_string()),
            }
        }
    })
}

/// `None`: that is no type's name.
fn typed(kind: &str, value: &serde_json::Value) -> Result<Option<Value>, String> {
    // Numbers and documents may be written without quotes.
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let wrong = |what: &str| format!("{{\"{kind}\": {value}}} is no {what}");
    Ok(Some(match kind {
        "boolean" => Value::Boolean(text.parse().map_err(|_| wrong("boolean"))?),
        "int64" => Value::Int64(text.parse().map_err(|_| wrong("integer of 64 bits"))?),
        "float64" => Value::Float64(text.parse().map_err(|_| wrong("number"))?),
        "bytes" => Value::Bytes(STANDARD.decode(&text).map_err(|_| wrong("base64"))?),
        "decimal" => Value::Decimal(text),
        "text" => Value::Text(text),
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

/// Writes a value so that [`parse`] reads the same.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
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
            assert_eq!(parse(&serde_json::from_str(&text).unwrap()), Ok(value), "{text}");
        }
    }

    #[test]
    fn documents_need_no_type() {
        let parsed = |text: &str| parse(&serde_json::from_str(text).unwrap());
        assert_eq!(parsed(r#"{"sku": "A-1"}"#), Ok(Value::Json(r#"{"sku":"A-1"}"#.into())));
        assert_eq!(parsed(r#"[1, null]"#), Ok(Value::Json("[1,null]".into())));
        assert_eq!(parsed(r#"{"decimal": 12.5}"#), Ok(Value::Decimal("12.5".into())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fault = |text: &str| parse(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert_eq!(
            fault("18446744073709551615"),
            "18446744073709551615 does not fit 64 bits; write {\"decimal\": \"18446744073709551615\"}"
        );
        assert_eq!(fault(r#"{"bytes": "?"}"#), "{\"bytes\": \"?\"} is no base64");
        assert_eq!(fault(r#"{"int64": 1.5}"#), "{\"int64\": 1.5} is no integer of 64 bits");
    }
}
