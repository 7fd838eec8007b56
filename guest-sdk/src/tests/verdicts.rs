use super::{obey, signal};
use crate::bindings::types::Signal as Row;
use crate::bindings::types::{Outage, Retry, SignalType};
use crate::{Error, Outcome, Result, Verdict, export, testing};
use std::fmt;
use std::time::Duration;

/// An error with a cause; `repeats` says whether its own message contains that of the cause.
#[derive(Debug)]
struct Outer {
    repeats: bool,
    cause: std::num::ParseIntError,
}

impl fmt::Display for Outer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.repeats {
            true => write!(out, "read order: {}", self.cause),
            false => write!(out, "read order"),
        }
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

fn outer(repeats: bool) -> std::result::Result<(), Outer> {
    "x".parse::<i64>().map(drop).map_err(|cause| Outer { repeats, cause })
}

#[test]
fn any_error_means_retry_and_names_each_cause_once() {
    for repeats in [true, false] {
        let failed: Result<()> = (|| Ok(outer(repeats)?))();
        assert_eq!(failed, Err(Error::retry("read order: invalid digit found in string")));
    }
}

#[test]
fn texts_and_boxed_errors_are_converted() {
    let text: Result<()> = (|| Ok(Err("no customer")?))();
    assert_eq!(text, Err(Error::retry("no customer")));
    let owned: Result<()> = (|| Ok(Err(format!("no customer {}", 7))?))();
    assert_eq!(owned, Err(Error::retry("no customer 7")));
    let boxed: Box<dyn std::error::Error> = "boxed".into();
    let boxed: Result<()> = (|| Ok(Err(boxed)?))();
    assert_eq!(boxed, Err(Error::retry("boxed")));
}

fn outcome(result: Result<()>) -> std::result::Result<Outcome, Outage> {
    result.unwrap_err().into_outcome()
}

#[test]
fn a_verdict_decides_what_an_error_means() {
    let after = Duration::from_millis(1500);
    let failed = || Err("broken");
    assert_eq!(outcome(failed().or_reject()), Ok(Outcome::reject("broken")));
    assert_eq!(outcome(failed().or_retry_after(after)), Ok(Outcome::retry_after(after, "broken")));
    assert_eq!(outcome(failed().or_skip()), Ok(Outcome::Skip));
    assert_eq!(testing::take_records()[0].fields, [("reason".to_owned(), "broken".to_owned())]);
    let retry = Retry { reason: "broken".into(), after_ms: None };
    assert_eq!(outcome(failed().or_unavailable()), Err(Outage::Unavailable(retry)));
    assert_eq!(outcome(failed().or_misconfigured()), Err(Outage::Misconfigured("broken".into())));
}

#[test]
fn after_is_kept_if_an_attempt_follows() {
    let after = Duration::from_secs(2);
    let retry = Retry { reason: "r".into(), after_ms: Some(2000) };
    let told = |error: Error| error.after(after).into_outcome();
    assert_eq!(told(Error::retry("r")), Ok(Outcome::Retry(retry.clone())));
    assert_eq!(told(Error::unavailable("r")), Err(Outage::Unavailable(retry)));
    assert_eq!(told(Error::reject("r")), Ok(Outcome::reject("r")));
    let forever = Outcome::retry_after(Duration::MAX, "r");
    assert_eq!(forever, Outcome::Retry(Retry { reason: "r".into(), after_ms: Some(u64::MAX) }));
}

#[test]
fn an_outage_of_the_bus_keeps_its_delay() {
    let retry = Retry { reason: "down".into(), after_ms: Some(5) };
    let outage = Outage::Unavailable(retry);
    assert_eq!(Error::of_outage(outage.clone()).into_outcome(), Err(outage));
}

#[test]
fn exports_convert_rows_and_results() {
    let columns = signal(1, "").columns().to_vec();
    let signal_type = SignalType { name: "T".into(), columns, attributes: Vec::new() };
    let row = |payload: &str| Row { id: "T:1".into(), attempt: 1, values: vec![1.into(), payload.into()] };
    assert_eq!(export::single(obey, signal_type.clone(), row("sent")), Ok(Outcome::Sent));
    let rejected = export::single(obey, signal_type.clone(), row("reject"));
    assert_eq!(rejected, Ok(Outcome::reject("broken")));
    assert!(export::single(obey, signal_type.clone(), row("unavailable")).is_err());
    let all = export::bulk(|signals| crate::each(signals, obey), signal_type, vec![row("retry"); 2]);
    assert_eq!(all, Ok(vec![Outcome::retry("busy"); 2]));
}

/// Calls a function for signals in turn.
fn each(payloads: &[&str], attributes: &[(&str, &str)]) -> std::result::Result<Vec<Outcome>, Outage> {
    let columns = signal(1, "").columns().to_vec();
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let signal_type = SignalType { name: "T".into(), columns, attributes };
    let row = |payload: &&str| Row { id: "T:1".into(), attempt: 1, values: vec![1.into(), (*payload).into()] };
    let send = |signal: &crate::Signal| match signal.get("payload")? {
        "slow" => {
            std::thread::sleep(Duration::from_millis(5));
            Ok(Outcome::Sent)
        }
        _ => obey(signal),
    };
    export::each(send, signal_type, payloads.iter().map(row).collect())
}

const KNOWN: [(&str, &str); 1] = [("untried", "not tried")];

#[test]
fn a_call_ends_after_its_share_of_time() {
    let untried = || Outcome::retry("not tried");
    assert_eq!(each(&["slow", "never", "never"], &KNOWN), Ok(vec![Outcome::Sent, untried(), untried()]));
    assert_eq!(each(&["slow"], &KNOWN), Ok(vec![Outcome::Sent]));
    assert_eq!(each(&["slow", "reject"], &[]), Ok(vec![Outcome::Sent, Outcome::reject("broken")]));
    assert_eq!(each(&[], &KNOWN), Ok(vec![]));
}

#[test]
fn an_outage_behind_decided_signals_is_the_answer_to_the_next_call() {
    let untried = || Outcome::retry("not tried");
    let down = || Err(Outage::Unavailable(Retry { reason: "down".into(), after_ms: None }));
    assert_eq!(each(&["unavailable", "never"], &KNOWN), down());
    assert_eq!(each(&["reject", "unavailable", "never"], &KNOWN), Ok(vec![Outcome::reject("broken"), untried(), untried()]));
    assert_eq!(each(&["never"], &KNOWN), down());
    assert_eq!(each(&["retry"], &KNOWN), Ok(vec![Outcome::retry("busy")]));
    // A relay that does not know it goes on with other signals.
    assert_eq!(each(&["reject", "unavailable"], &[]), Ok(vec![Outcome::reject("broken"), Outcome::retry("down")]));
    assert_eq!(each(&["retry"], &[]), Ok(vec![Outcome::retry("busy")]));
}
