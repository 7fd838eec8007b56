use crate::{RowError, Signal, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

pub fn one(value: impl Into<Value>) -> Signal {
    Signal::builder("T").typed("c", "kind", value).build()
}

pub fn reads<T: DeserializeOwned + PartialEq + Debug>(value: impl Into<Value>, expected: T) {
    let value = value.into();
    let shown = format!("{value:?}");
    assert_eq!(one(value).get::<T>("c"), Ok(expected), "{shown}");
}

pub fn refuses<T: DeserializeOwned + Debug>(value: impl Into<Value>, expected: &str) {
    let error = one(value).get::<T>("c").unwrap_err();
    assert_eq!(error.to_string(), format!("column \"c\" of type \"kind\": {expected}"));
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.to_owned())
}

pub fn json(text: &str) -> Value {
    Value::Json(text.to_owned())
}

#[test]
fn integers_are_exact_or_refused() {
    reads(i64::MIN, i64::MIN);
    reads(-9_007_199_254_740_993, -9_007_199_254_740_993_i64);
    reads(255, 255_u8);
    reads(decimal("18446744073709551615"), u64::MAX);
    reads(decimal("-170141183460469231731687303715884105728"), i128::MIN);
    reads(i64::MAX, i128::from(i64::MAX));
    refuses::<u8>(256, "expected u8, found int64 256");
    refuses::<u64>(-1, "expected u64, found int64 -1");
    refuses::<i64>(decimal("12.50"), "expected i64, found decimal");
    refuses::<i64>(decimal("18446744073709551615"), "expected i64, found decimal");
    refuses::<i64>("12", "expected i64, found text");
    refuses::<i64>(12.0, "expected i64, found float64");
    refuses::<i64>(Value::Null, "expected i64, found null");
}

#[test]
fn floats_are_exact_or_refused() {
    reads(0.1, 0.1_f64);
    reads(1 << 53, 9_007_199_254_740_992.0_f64);
    refuses::<f64>((1 << 53) + 1, "expected an integer that f64 holds exactly, found int64 9007199254740993");
    refuses::<f64>(decimal("0.1"), "expected f64, found decimal");
}

#[test]
fn zero_and_one_are_read_as_booleans() {
    reads(true, true);
    reads(0, false);
    reads(1, true);
    refuses::<bool>(2, "expected a boolean, found int64 2");
    refuses::<bool>("true", "expected a boolean, found text");
}

#[test]
fn only_null_is_none() {
    reads(Value::Null, None::<String>);
    reads("", Some(String::new()));
    reads(7, Some(7_i64));
    refuses::<String>(Value::Null, "expected a string, found null");
}

#[test]
fn every_text_is_read_as_text_and_stays_out_of_errors() {
    let cases: [fn(String) -> Value; 9] = [
        Value::Decimal,
        Value::Text,
        Value::Json,
        Value::Uuid,
        Value::Date,
        Value::Time,
        Value::Datetime,
        Value::Timestamp,
        Value::Other,
    ];
    for case in cases {
        let value = case("\"secret\"".to_owned());
        reads(value.clone(), "\"secret\"".to_owned());
        let error = one(value).get::<Vec<u64>>("c").unwrap_err().to_string();
        assert!(error.starts_with("column \"c\" of type \"kind\": "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn texts_can_be_borrowed_and_name_variants() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum State {
        Open,
        Closed,
    }
    assert_eq!(one("Ann").get::<&str>("c"), Ok("Ann"));
    reads(Value::Other("closed".into()), State::Closed);
    reads("open", State::Open);
    reads(json("\"open\""), State::Open);
    refuses::<State>("ajar", "expected \"open\", \"closed\", found text");
}

#[test]
fn bytes_read_as_a_list_of_bytes() {
    reads(vec![0, 255, 16], vec![0_u8, 255, 16]);
    reads(vec![0, 255, 16], [0_u8, 255, 16]);
    refuses::<String>(vec![0, 255], "expected a string, found bytes");
}

#[test]
fn json_reads_as_nested_types() {
    reads(json("[1, 2]"), vec![1_i64, 2]);
    reads(json(r#"{"a": [true]}"#), BTreeMap::from([("a".to_owned(), vec![true])]));
    reads(json(r#"{"a": null}"#), serde_json::json!({"a": null}));
    reads(json("9007199254740993"), serde_json::json!(9_007_199_254_740_993_i64));
    let error = one(json("[1")).get::<Vec<i64>>("c").unwrap_err();
    assert!(error.to_string().starts_with("column \"c\" of type \"kind\": EOF"), "{error}");
}

fn order() -> Signal {
    let builder = Signal::builder("OrderPlaced").column("id", 7).column("note", Value::Null);
    builder.typed("total", "numeric", decimal("12.50")).build()
}

#[test]
fn a_row_reads_by_name_or_by_position() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        total: String,
        id: u32,
        note: Option<String>,
        absent: Option<i64>,
    }
    let expected = Order { total: "12.50".into(), id: 7, note: None, absent: None };
    assert_eq!(order().row(), Ok(expected));
    assert_eq!(order().row(), Ok((7_i64, None::<String>, "12.50".to_owned())));
}

#[test]
fn a_row_that_does_not_fit_is_reported_with_its_column() {
    #[derive(Debug, Deserialize)]
    struct Wrong {
        #[allow(dead_code, reason = "never read")]
        total: i64,
    }
    #[derive(Debug, Deserialize)]
    struct Absent {
        #[allow(dead_code, reason = "never read")]
        customer: String,
    }
    let missing = "column \"customer\" is not in the row, which has \"id\", \"note\", \"total\"";
    let told = |result: Result<(), RowError>| result.unwrap_err().to_string();
    assert_eq!(told(order().row::<Wrong>().map(drop)), "column \"total\" of type \"numeric\": expected i64, found decimal");
    assert_eq!(told(order().row::<Absent>().map(drop)), missing);
    assert_eq!(told(order().get::<String>("customer").map(drop)), missing);
}

#[test]
fn json_is_lossless() {
    let signal = Signal::builder("T")
        .column("int", i64::MIN)
        .column("decimal", decimal("0.10"))
        .column("nan", f64::NAN)
        .column("float", 0.1)
        .column("bytes", vec![0, 255, 16, 7])
        .column("json", json("{\"b\": 1, \"a\": 9007199254740993}"))
        .column("null", Value::Null)
        .build();
    assert_eq!(
        serde_json::to_string(&signal).unwrap(),
        concat!(
            r#"{"int":-9223372036854775808,"decimal":"0.10","nan":"NaN","float":0.1,"#,
            r#""bytes":"AP8QBw==","json":{"b": 1, "a": 9007199254740993},"null":null}"#
        )
    );
}

#[test]
fn base64_is_padded() {
    let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
    for (bytes, text) in cases {
        assert_eq!(crate::json::Base64(bytes.as_bytes()).to_string(), text);
    }
}
