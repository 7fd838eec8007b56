//! Tests of the plugin as the relay calls it, on your own machine.

use super::*;
use signalbus_guest::{Outcome, testing};

fn row(id: i64, outcome: &str) -> Signal {
    let builder = Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}"));
    builder
        .column("id", id)
        .column("total", Value::Decimal("12.50".into()))
        .column("outcome", outcome)
        .build()
}

fn send(outcomes: &[&str]) -> BulkResult {
    testing::settings([("connection", "bus"), ("outcome_column", "outcome")]);
    let rows: Vec<_> = (1..)
        .zip(outcomes)
        .map(|(id, outcome)| row(id, outcome))
        .collect();
    send_all(&rows)
}

fn published() -> Vec<String> {
    testing::take_published()
        .into_iter()
        .filter_map(|message| message.id)
        .collect()
}

#[test]
fn a_row_becomes_a_message() {
    testing::secrets([("token", "not-a-real-token")]);
    assert_eq!(send(&[""]), Ok(vec![Outcome::Sent]));
    let expected = Message::new("bus", "OrderPlaced")
        .id("OrderPlaced:1")
        .header("signal-type", "OrderPlaced")
        .header("token", "not-a-real-token")
        .content_type("application/json")
        .body(r#"{"id":1,"total":"12.50","outcome":""}"#);
    assert_eq!(testing::take_published(), [expected]);
    let record = testing::take_records().remove(0);
    assert_eq!(
        (record.message.as_str(), record.fields[0].1.as_str()),
        ("published", "1")
    );
}

#[test]
fn each_row_decides_for_itself() {
    testing::publish_with(|_| Ok(vec![Outcome::Sent, Outcome::retry("the bus is full")]));
    let expected = [
        Outcome::Skip,
        Outcome::Sent,
        Outcome::retry_after(Duration::from_millis(1500), "the row asks for it"),
        Outcome::reject("the row asks for it"),
        Outcome::retry("the bus is full"),
    ];
    assert_eq!(
        send(&["skip", "", "retry", "reject", "whatever"]),
        Ok(expected.to_vec())
    );
    assert_eq!(published(), ["OrderPlaced:2", "OrderPlaced:5"]);
}

#[test]
fn a_column_means_nothing_unless_a_setting_names_it() {
    testing::settings([("connection", "bus")]);
    assert_eq!(send_all(&[row(1, "skip")]), Ok(vec![Outcome::Sent]));
    testing::settings([("connection", "bus"), ("outcome_column", "verdict")]);
    let unknown = Error::misconfigured("setting \"outcome_column\" names an unknown column");
    assert_eq!(send_all(&[row(1, "skip")]), Err(unknown));
    assert_eq!(published(), ["OrderPlaced:1"]);
}

#[test]
fn an_outage_publishes_nothing() {
    let outage = Error::unavailable("the row asks for it").after(Duration::from_millis(1500));
    assert_eq!(send(&["", "unavailable"]), Err(outage));
    assert_eq!(
        send(&["", "misconfigured"]),
        Err(Error::misconfigured("the row asks for it"))
    );
    testing::settings([]);
    assert_eq!(
        send_all(&[row(1, "")]),
        Err(Error::misconfigured("setting \"connection\" is missing"))
    );
    assert!(published().is_empty());
}

#[test]
#[should_panic(expected = "the row asks for it")]
fn a_row_can_crash_it() {
    let _ = send(&["panic"]);
}
