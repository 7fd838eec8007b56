use super::{obey, signal};
use crate::{BulkResult, Error, Message, Outcome, Signal, bulk, each, http, publish, publish_each, testing};

fn signals(payloads: &[&str]) -> Vec<Signal> {
    (1..).zip(payloads).map(|(id, payload)| signal(id, payload)).collect()
}

fn message(signal: &Signal) -> crate::Result<Message> {
    obey(signal)?;
    Ok(Message::new("bus", "orders").id(signal.id()))
}

#[test]
fn each_signal_has_its_own_outcome() {
    let expected = vec![Outcome::retry("busy"), Outcome::reject("broken"), Outcome::Sent];
    assert_eq!(each(&signals(&["retry", "reject", "sent"]), obey), Ok(expected));
}

#[test]
fn an_outage_applies_to_the_call_only_while_nothing_is_decided() {
    let first = each(&signals(&["unavailable", "never"]), obey);
    assert_eq!(first, Err(Error::unavailable("down")));
    let later = each(&signals(&["sent", "unavailable", "never"]), obey);
    let expected = vec![Outcome::Sent, Outcome::retry("down"), Outcome::retry("down")];
    assert_eq!(later, Ok(expected));
}

#[test]
fn signals_behind_an_outage_were_not_tried_if_the_relay_knows_that() {
    let signals = ["sent", "unavailable", "never"]
        .map(|payload| Signal::builder("OrderPlaced").column("payload", payload).attribute("untried", "not tried").build());
    let expected = vec![Outcome::Sent, Outcome::retry("not tried"), Outcome::retry("not tried")];
    assert_eq!(each(&signals, obey), Ok(expected));
    assert_eq!(each(&signals[1..], obey), Err(Error::unavailable("down")));
}

#[test]
fn an_error_of_one_signal_never_deletes_its_neighbours() {
    let retried = Ok(vec![Outcome::retry("broken"); 2]);
    assert_eq!(bulk::answer(Err(Error::reject("broken")), 2), retried);
    let skipped = crate::Verdict::<()>::or_skip(Err("broken")).unwrap_err();
    assert_eq!(bulk::answer(Err(skipped), 2), retried);
    assert_eq!(bulk::answer(Err(Error::retry("broken")), 2), retried);
    assert!(bulk::answer(Err(Error::unavailable("down")), 2).is_err());
    assert!(bulk::answer(Err(Error::misconfigured("no url")), 2).is_err());
}

#[test]
fn each_signal_has_the_outcome_of_its_message() {
    testing::publish_with(|messages| {
        assert_eq!(messages.len(), 2, "both in one call");
        Ok(vec![Outcome::Sent, Outcome::retry("full")])
    });
    let outcomes = publish_each(&signals(&["reject", "sent", "retry", "sent"]), |signal| match obey(signal)? {
        Outcome::Sent => message(signal),
        _ => Err(Error::retry("busy")),
    });
    let expected = [Outcome::reject("broken"), Outcome::Sent, Outcome::retry("busy"), Outcome::retry("full")];
    assert_eq!(outcomes, Ok(expected.to_vec()));
}

#[test]
fn a_missing_outcome_does_not_count_as_sent() {
    testing::publish_with(|_| Ok(Vec::new()));
    let expected = Outcome::retry("relay returned no outcome for the message");
    assert_eq!(publish_each(&signals(&["sent"]), message), Ok(vec![expected.clone()]));
    assert_eq!(Message::new("bus", "orders").publish(), Ok(expected.clone()));
    testing::publish_with(|_| Ok(vec![Outcome::Sent]));
    assert_eq!(publish_each(&signals(&["sent", "sent"]), message), Ok(vec![expected; 2]));
}

#[test]
fn nothing_is_published_without_messages_or_before_an_outage() {
    testing::publish_with(|_| panic!("nothing to publish"));
    assert_eq!(publish_each(&signals(&["reject"]), message), Ok(vec![Outcome::reject("broken")]));
    let outage = publish_each(&signals(&["sent", "unavailable"]), message);
    assert_eq!(outage, Err(Error::unavailable("down")));
}

/// Runs of signals with these payloads; ids go on from run to run.
fn runs(payloads: &[&[&str]]) -> Vec<Vec<Signal>> {
    let known = |(id, payload): (i64, &&str)| {
        let builder = Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}")).attribute("untried", "signalbus: not tried");
        builder.column("id", id).column("payload", *payload).build()
    };
    let payload = payloads.concat();
    let mut all = (1..).zip(&payload).map(known);
    payloads.iter().map(|run| all.by_ref().take(run.len()).collect()).collect()
}

fn published() -> Vec<String> {
    testing::take_published().into_iter().filter_map(|message| message.id).collect()
}

fn ids(ids: &[i64]) -> Vec<String> {
    ids.iter().map(|id| format!("OrderPlaced:{id}")).collect()
}

/// What a call with runs answers: nothing is behind a failure, and other runs go on.
fn failing_runs() -> Vec<Vec<Option<Outcome>>> {
    let sent = || Some(Outcome::Sent);
    vec![vec![sent(), Some(Outcome::retry("busy")), None], vec![sent(), sent()], vec![Some(Outcome::reject("broken")), None]]
}

#[test]
fn a_run_ends_at_its_first_failure() {
    let payloads = runs(&[&["sent", "retry", "never"], &["sent", "sent"], &["reject", "never"]]);
    assert_eq!(testing::send_runs(|signals| each(signals, obey), &payloads), Ok(failing_runs()));
    let send_all = |signals: &[Signal]| {
        publish_each(signals, |signal| match obey(signal)? {
            Outcome::Sent => message(signal),
            _ => Err(Error::retry("busy")),
        })
    };
    assert_eq!(testing::send_runs(send_all, &payloads), Ok(failing_runs()));
    assert_eq!(published(), ids(&[1, 4, 5]));
}

#[test]
fn what_the_bus_does_not_take_ends_a_run() {
    testing::publish_with(|messages| {
        let full = messages[0].id.as_deref() == Some("OrderPlaced:2");
        Ok(vec![if full { Outcome::retry("full") } else { Outcome::Sent }])
    });
    let skipping = |signals: &[Signal]| {
        publish_each(signals, |signal| match signal.get("payload")? {
            "skip" => Err(crate::Verdict::<()>::or_skip(Err("nothing to send")).unwrap_err()),
            _ => message(signal),
        })
    };
    let answer = testing::send_runs(skipping, &runs(&[&["skip", "sent", "skip", "sent"], &["sent", "skip"]]));
    let (sent, skip, full) = (Some(Outcome::Sent), Some(Outcome::Skip), Some(Outcome::retry("full")));
    assert_eq!(answer, Ok(vec![vec![skip.clone(), full, None, None], vec![sent, skip]]));
}

/// A function that knows no order gets one signal of each run at a time, and sends nothing before.
#[test]
fn functions_that_know_no_order_are_called_with_one_signal_of_each_run() {
    fn listed(signals: &[Signal]) -> BulkResult {
        publish(&signals.iter().map(|signal| Message::new("bus", "orders").id(signal.id())).collect::<Vec<_>>())
    }
    fn filtered(signals: &[Signal]) -> BulkResult {
        let (retried, wanted): (Vec<Signal>, _) =
            signals.iter().cloned().partition(|signal| matches!(signal.get("payload"), Ok("retry")));
        let mut outcomes = publish_each(&wanted, message)?.into_iter();
        let outcome = |signal: &Signal| match retried.iter().any(|retried| retried.id() == signal.id()) {
            true => Some(Outcome::retry("busy")),
            false => outcomes.next(),
        };
        Ok(signals.iter().filter_map(outcome).collect())
    }
    let sent = || Some(Outcome::Sent);
    let answer = testing::send_runs(listed, &runs(&[&["", "", ""], &["", ""]]));
    assert_eq!(answer, Ok(vec![vec![sent(), sent(), sent()], vec![sent(), sent()]]));
    assert_eq!(published(), ids(&[1, 4, 2, 5, 3]));
    let answer = testing::send_runs(filtered, &runs(&[&["sent", "retry", "sent"], &["sent", "sent"]]));
    assert_eq!(answer, Ok(vec![vec![sent(), Some(Outcome::retry("busy")), None], vec![sent(), sent()]]));
    assert_eq!(published(), ids(&[1, 4, 5]));
}

#[test]
fn http_requests_that_know_no_order_are_refused_before_any_is_sent() {
    fn send_all(signals: &[Signal]) -> BulkResult {
        let answers = http::send_all(signals.iter().map(|signal| http::Request::get(signal.id())), 9);
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_or_else(|error| Outcome::retry(error.to_string()), |_| Outcome::Sent))
            .collect())
    }
    let answer = testing::send_runs(send_all, &runs(&[&["", ""], &[""]]));
    assert_eq!(answer, Ok(vec![vec![Some(Outcome::Sent); 2], vec![Some(Outcome::Sent)]]));
    let urls: Vec<String> = testing::take_requests().into_iter().map(|request| request.url).collect();
    assert_eq!(urls, ids(&[1, 3, 2]));
}

#[test]
fn an_outage_within_runs_charges_nothing() {
    let answer = testing::send_runs(|signals| each(signals, obey), &runs(&[&["sent", "unavailable"], &["never"]]));
    assert_eq!(answer, Ok(vec![vec![Some(Outcome::Sent), None], vec![None]]));
    let answer = testing::send_runs(|signals| each(signals, obey), &runs(&[&["unavailable", "never"]]));
    assert_eq!(answer, Err(Error::unavailable("down")));
}
