use super::{obey, signal};
use crate::{Error, Message, Outcome, Signal, bulk, each, publish_each, testing};

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
