//! Tests of the plugin as the relay calls it, with simulated servers.

use super::*;
use signalbus_guest::Error;
use signalbus_guest::http::{Error as HttpError, Response};
use signalbus_guest::{Outcome, Value, testing};
use std::time::Duration;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn settings(more: &[(&str, &str)]) {
    let url = [("url", "https://shop.example/hooks")];
    testing::settings(url.into_iter().filter(|_| more.iter().all(|(key, _)| *key != "url")).chain(more.iter().copied()));
    testing::secrets([("signing_key", KEY)]);
}

fn signal(id: i64) -> Signal {
    let builder = Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}"));
    builder.column("id", id).column("customer", "Ada & Co").typed("data", "json", Value::Json("{\"a\": 1}".into())).build()
}

fn signals() -> [Signal; 3] {
    [1, 2, 3].map(signal)
}

fn answered(answers: [Result<Response, HttpError>; 3]) {
    let mut answers = answers.into_iter();
    testing::http_with(move |_| answers.next().unwrap());
}

#[test]
fn requests_are_signed_and_contain_the_row() {
    settings(&[]);
    assert_eq!(send_all(&signals()), Ok(vec![Outcome::Sent; 3]));
    let requests = testing::take_requests();
    let request = &requests[1];
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://shop.example/hooks"));
    assert_eq!(request.body, br#"{"id":2,"customer":"Ada & Co","data":{"a": 1}}"#);
    let header = |name: &str| &request.headers.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!((header("webhook-id").as_str(), header("content-type").as_str()), ("OrderPlaced:2", "application/json"));
    let verifier = standardwebhooks::Webhook::new(KEY).unwrap();
    let timestamp = header("webhook-timestamp").parse().unwrap();
    assert_eq!(*header("webhook-signature"), verifier.sign("OrderPlaced:2", timestamp, &request.body).unwrap());
}

#[test]
fn the_body_can_be_some_columns_or_one_unchanged() {
    let body = |more: &[(&str, &str)]| {
        settings(more);
        assert_eq!(send_all(&[signal(7)]), Ok(vec![Outcome::Sent]));
        let request = testing::take_requests().pop().unwrap();
        let content_type = request.headers.into_iter().find(|(name, _)| name == "content-type").unwrap().1;
        (String::from_utf8(request.body).unwrap(), content_type)
    };
    assert_eq!(body(&[("columns", "[\"customer\"]")]), (r#"{"customer":"Ada & Co"}"#.into(), "application/json".into()));
    assert_eq!(body(&[("body_column", "data")]), ("{\"a\": 1}".into(), "application/json".into()));
    assert_eq!(body(&[("body_column", "customer")]), ("Ada & Co".into(), "text/plain; charset=utf-8".into()));
    let typed = [("body_column", "customer"), ("content_type", "text/x-name")];
    assert_eq!(body(&typed), ("Ada & Co".into(), "text/x-name".into()));
}

#[test]
fn the_url_method_and_headers_are_settings() {
    settings(&[
        ("url", "https://shop.example/{id}/{customer}"),
        ("method", "put"),
        ("headers", r#"{"Authorization": "Bearer {{secret:token}}", "Content-Type": "x/y"}"#),
        ("timeout", "3"),
    ]);
    assert_eq!(send_all(&[signal(7)]), Ok(vec![Outcome::Sent]));
    let request = testing::take_requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.url.as_str()), ("PUT", "https://shop.example/7/Ada%20%26%20Co"));
    assert_eq!(request.timeout, Duration::from_secs(3));
    assert!(request.headers.contains(&("Authorization".into(), "Bearer {{secret:token}}".into())));
    assert_eq!(request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")).count(), 1);
}

#[test]
fn ids_that_a_header_cannot_contain_are_encoded() {
    settings(&[]);
    let signal = Signal::builder("T").id("T:é\n%25 x").column("id", 1).build();
    assert_eq!(send_all(&[signal]), Ok(vec![Outcome::Sent]));
    let request = testing::take_requests().pop().unwrap();
    assert!(request.headers.contains(&("webhook-id".into(), "T:%C3%A9%0A%2525%20x".into())));
}

#[test]
fn each_signal_has_its_own_outcome() {
    settings(&[]);
    answered([Ok(Response::new(200)), Ok(Response::new(500)), Err(HttpError::Unreachable("connection refused".into()))]);
    let expected =
        [Outcome::Sent, Outcome::retry("the server answered 500"), Outcome::retry("server is not reachable: connection refused")];
    assert_eq!(send_all(&signals()), Ok(expected.to_vec()));
}

/// One request of each order key at a time, none behind a failure; a key that goes on waits for no other.
#[test]
fn runs_are_sent_in_order() {
    settings(&[]);
    testing::http_with(|request| match request.body.starts_with(br#"{"id":2,"#) {
        true => Ok(Response::new(500)),
        false => Ok(Response::new(200)),
    });
    let runs = [vec![signal(1), signal(2), signal(3)], vec![signal(4)], vec![signal(5), signal(6)]];
    let failed = Outcome::retry("the server answered 500");
    let sent = Some(Outcome::Sent);
    let expected = vec![vec![sent.clone(), Some(failed), None], vec![sent.clone()], vec![sent.clone(), sent]];
    assert_eq!(testing::send_runs(send_all, &runs), Ok(expected));
    let ids = testing::take_requests().into_iter().map(|request| request.body[6] - b'0');
    assert_eq!(ids.collect::<Vec<_>>(), [1, 4, 5, 2, 6]);
}

#[test]
fn an_unreachable_server_is_an_outage() {
    settings(&[]);
    testing::http_with(|_| Err(HttpError::Unreachable("connection refused".into())));
    let outage = Err(Error::unavailable("server is not reachable: connection refused"));
    assert_eq!(send_all(&signals()), outage);
}

#[test]
fn a_missing_grant_is_misconfigured() {
    settings(&[]);
    testing::http_with(|_| Err(HttpError::Denied));
    let outage = Err(Error::misconfigured("request is not granted; the relay's log says what is missing"));
    assert_eq!(send_all(&signals()), outage);
}

#[test]
fn a_row_without_a_valid_url_is_rejected_alone() {
    settings(&[("url", "https://shop.example/{customer}")]);
    let nobody = Signal::builder("T").column("customer", "..").build();
    let somebody = Signal::builder("T").column("customer", "Ada").build();
    let reason = "column \"customer\" has no value that can be part of the URL";
    assert_eq!(send_all(&[nobody, somebody]), Ok(vec![Outcome::reject(reason), Outcome::Sent]));
}

#[test]
fn settings_are_checked_against_the_table() {
    for (more, words) in [
        (("columns", "[\"nothing\"]"), "the table has no column \"nothing\" (it has: id, customer, data)"),
        (("body_column", "nothing"), "the table has no column \"nothing\""),
        (("url", "https://a/{nothing}"), "the table has no column \"nothing\""),
        (("url", "https://a/{id"), "has a \"{\" without a matching \"}\""),
        (("timeout", "soon"), "setting \"timeout\""),
        (("colour", "red"), "colour"),
    ] {
        settings(&[more]);
        let error = send_all(&signals()).unwrap_err();
        assert!(error.is_outage() && error.reason().contains(words), "{error}");
    }
    settings(&[("columns", "[\"id\"]"), ("body_column", "id")]);
    assert!(send_all(&signals()).unwrap_err().reason().contains("exclude each other"));
    assert!(testing::take_requests().is_empty());
}

#[test]
fn unsigned_requests_must_be_configured() {
    settings(&[]);
    testing::secrets([]);
    assert_eq!(send_all(&signals()), Err(Error::misconfigured("secret \"signing_key\" is missing")));
    settings(&[("signed", "false")]);
    testing::secrets([]);
    assert_eq!(send_all(&signals()), Ok(vec![Outcome::Sent; 3]));
    assert!(testing::take_requests()[0].headers.iter().all(|(name, _)| name != "webhook-signature"));
}

#[test]
fn signals_without_time_left_are_retried() {
    settings(&[]);
    let signals = [1, 2, 3].map(|id| Signal::builder("T").attribute("timeout_ms", "100").column("id", id).build());
    testing::http_with(|request| {
        assert_eq!(request.timeout, Duration::from_millis(80));
        std::thread::sleep(Duration::from_millis(20));
        Ok(Response::new(200))
    });
    let untried = Outcome::retry("not tried");
    assert_eq!(send_all(&signals), Ok(vec![Outcome::Sent, untried.clone(), untried]));
}
