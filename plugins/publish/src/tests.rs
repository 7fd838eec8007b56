//! Tests of the messages that settings produce.

use super::*;
use signalbus_guest::{Message, Value, testing};

fn signal() -> Signal {
    Signal::builder("OrderPlaced")
        .id("OrderPlaced:7")
        .column("id", 7)
        .column("region", "eu")
        .column("total", Value::Decimal("12.50".into()))
        .column("note", Value::Null)
        .column("document", Value::Json(r#"{"n":9007199254740993}"#.into()))
        .column("image", Value::Bytes(vec![0, 255]))
        .build()
}

fn published(settings: &[(&str, &str)]) -> Message {
    let basis = [("connection", "bus"), ("destination", "orders.{region}")];
    testing::settings(basis.into_iter().chain(settings.iter().copied()));
    send_all(&[signal()]).unwrap();
    testing::take_published().remove(0)
}

fn refused(settings: &[(&str, &str)]) -> String {
    testing::settings(settings.iter().copied());
    let error = send_all(&[signal()]).unwrap_err();
    assert!(error.is_outage(), "{error}");
    error.reason().to_owned()
}

fn json(message: &Message) -> serde_json::Value {
    serde_json::from_slice(&message.body).unwrap()
}

#[test]
fn a_row_is_a_json_object_by_default() {
    let message = published(&[]);
    assert_eq!((message.connection.as_str(), message.destination.as_str()), ("bus", "orders.eu"));
    assert_eq!((message.id.as_deref(), message.key), (Some("OrderPlaced:7"), None));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    let body = String::from_utf8(message.body).unwrap();
    let expected = r#"{"id":7,"region":"eu","total":"12.50","note":null,"document":{"n":9007199254740993},"image":"AP8="}"#;
    assert_eq!(body, expected);
}

#[test]
fn everything_can_be_set() {
    let message = published(&[
        ("key", "{id}"),
        ("id", "order-{id}"),
        ("columns", r#"["total","id"]"#),
        ("headers", r#"{"x-region":"{{{region}}}","x-none":"{note}","x-version":2}"#),
        ("options", r#"{"amqp.mandatory":true}"#),
        ("content_type", "application/vnd.shop+json"),
    ]);
    assert_eq!((message.key.as_deref(), message.id.as_deref()), (Some("7"), Some("order-7")));
    assert_eq!(message.body, br#"{"total":"12.50","id":7}"#);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(message.headers, [pair("x-region", "{eu}"), pair("x-version", "2")]);
    assert_eq!(message.options, [pair("amqp.mandatory", "true")]);
    assert_eq!(message.content_type.as_deref(), Some("application/vnd.shop+json"));
}

#[test]
fn one_column_can_be_the_body_unchanged() {
    for (column, body, media) in [
        ("image", &[0, 255][..], "application/octet-stream"),
        ("document", br#"{"n":9007199254740993}"#, "application/json"),
        ("total", b"12.50", "text/plain; charset=utf-8"),
        ("note", b"", "text/plain; charset=utf-8"),
    ] {
        let message = published(&[("body_column", column)]);
        assert_eq!((message.body.as_slice(), message.content_type.as_deref()), (body, Some(media)), "{column}");
        assert_eq!(message.options.is_empty(), column != "note", "{column}");
    }
}

#[test]
fn a_structured_cloud_event_is_the_body() {
    let event = [("cloudevents", "structured"), ("source", "/shop"), ("subject", "{id}"), ("columns", r#"["id"]"#)];
    let message = published(&event);
    assert_eq!(message.content_type.as_deref(), Some("application/cloudevents+json"));
    let expected = serde_json::json!({
        "specversion": "1.0", "id": "OrderPlaced:7", "source": "/shop", "type": "OrderPlaced", "subject": "7",
        "datacontenttype": "application/json", "data": {"id": 7},
    });
    assert_eq!(json(&message), expected);
    let message = published(&[("cloudevents", "structured"), ("source", "/shop"), ("body_column", "image")]);
    assert_eq!(json(&message)["data_base64"], "AP8=");
}

#[test]
fn a_binary_cloud_event_is_in_the_headers() {
    let event = [("cloudevents", "binary"), ("source", "/shop"), ("type", "shop.{region}"), ("cloudevents_prefix", "ce_")];
    let message = published(&event);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let id = pair("ce_id", "OrderPlaced:7");
    let expected = [pair("ce_specversion", "1.0"), id, pair("ce_source", "/shop"), pair("ce_type", "shop.eu")];
    assert_eq!(message.headers, expected);
    assert_eq!(json(&message)["id"], 7);
}

#[test]
fn wrong_settings_park_the_signal_type() {
    let with = |more: &[(&'static str, &'static str)]| {
        let mut all = vec![("connection", "bus"), ("destination", "d")];
        all.extend(more);
        refused(&all)
    };
    assert_eq!(refused(&[("connection", "bus")]), "setting \"destination\" is missing");
    assert!(with(&[("colour", "red")]).contains("colour"));
    let unknown = "setting \"key\": unknown column \"nope\" (known: id, region, total, note, document, image) in \"{nope}\"";
    assert_eq!(with(&[("key", "{nope}")]), unknown);
    assert!(with(&[("key", "{id")]).contains("unmatched brace"));
    assert!(with(&[("body_column", "nope")]).starts_with("setting \"body_column\": unknown column \"nope\""));
    assert!(with(&[("columns", "[]"), ("body_column", "id")]).contains("exclude each other"));
    assert!(with(&[("source", "/shop")]).contains("need \"cloudevents\""));
    assert!(with(&[("cloudevents", "binary")]).contains("\"source\" is missing"));
}

#[test]
fn a_signal_without_a_required_value_is_rejected() {
    testing::settings([("connection", "bus"), ("destination", "orders.{note}")]);
    let outcomes = send_all(&[signal()]).unwrap();
    let expected = signalbus_guest::Outcome::reject("setting \"destination\" needs a column that is NULL");
    assert_eq!(outcomes, [expected]);
    testing::settings([("connection", "bus"), ("destination", "d"), ("key", "{image}")]);
    let outcomes = send_all(&[signal()]).unwrap();
    assert!(matches!(&outcomes[0], signalbus_guest::Outcome::Reject(reason) if reason.contains("\"image\" contains bytes")));
}
