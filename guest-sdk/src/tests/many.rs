use super::{obey, ordered, signal};
use crate::{Error, Message, Outcome, Signal, bulk, each, publish_each, testing};

const HELD: &str = "an earlier signal must be sent first";

fn signals(payloads: &[&str]) -> Vec<Signal> {
    (1..).zip(payloads).map(|(id, payload)| signal(id, payload)).collect()
}

fn in_order(payloads: &[&str]) -> Vec<Signal> {
    (1..).zip(payloads).map(|(id, payload)| ordered(id, payload)).collect()
}

fn message(signal: &Signal) -> crate::Result<Message> {
    obey(signal)?;
    Ok(Message::new("bus", "orders").id(signal.id()))
}

#[test]
fn without_order_each_signal_has_its_own_fate() {
    let expected = vec![Outcome::retry("busy"), Outcome::reject("broken"), Outcome::Sent];
    assert_eq!(each(&signals(&["retry", "reject", "sent"]), obey), Ok(expected));
}

#[test]
fn in_order_nothing_is_sent_past_a_retry() {
    let signals = in_order(&["sent", "reject", "retry", "never", "never"]);
    let expected = [Outcome::Sent, Outcome::reject("broken"), Outcome::retry("busy"), Outcome::retry(HELD), Outcome::retry(HELD)];
    assert_eq!(each(&signals, obey), Ok(expected.to_vec()));
}

#[test]
fn with_an_order_key_only_the_same_key_is_held() {
    let signals = [("Ann", "retry"), ("Bob", "sent"), ("Ann", "never")].map(|(key, payload)| {
        let builder = Signal::builder("T").attribute("ordered", "true");
        let builder = builder.attribute("order_key", "customer");
        builder.column("customer", key).column("payload", payload).build()
    });
    let expected = vec![Outcome::retry("busy"), Outcome::Sent, Outcome::retry(HELD)];
    assert_eq!(each(&signals, obey), Ok(expected));
}

#[test]
fn an_outage_concerns_the_call_only_while_nothing_is_decided() {
    let first = each(&signals(&["unavailable", "never"]), obey);
    assert_eq!(first, Err(Error::unavailable("down")));
    let later = each(&signals(&["sent", "unavailable", "never"]), obey);
    let expected = vec![Outcome::Sent, Outcome::retry("down"), Outcome::retry("down")];
    assert_eq!(later, Ok(expected));
}

#[test]
fn one_signals_verdict_never_deletes_its_neighbours() {
    let retried = Ok(vec![Outcome::retry("broken"); 2]);
    assert_eq!(bulk::answer(Err(Error::reject("broken")), 2), retried);
    let skipped = crate::Verdict::<()>::or_skip(Err("broken")).unwrap_err();
    assert_eq!(bulk::answer(Err(skipped), 2), retried);
    assert_eq!(bulk::answer(Err(Error::retry("broken")), 2), retried);
    assert!(bulk::answer(Err(Error::unavailable("down")), 2).is_err());
    assert!(bulk::answer(Err(Error::misconfigured("no url")), 2).is_err());
}

#[test]
fn each_signal_has_the_fate_of_its_message() {
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
fn a_missing_answer_is_no_success() {
    testing::publish_with(|_| Ok(Vec::new()));
    let expected = Outcome::retry("relay gave no outcome for the message");
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

#[test]
fn in_order_messages_go_out_one_by_one() {
    let mut calls = 0;
    testing::publish_with(move |messages| {
        assert_eq!(messages.len(), 1);
        calls += 1;
        Ok(vec![if calls == 2 { Outcome::retry("full") } else { Outcome::Sent }])
    });
    let expected = vec![Outcome::Sent, Outcome::retry("full"), Outcome::retry(HELD)];
    assert_eq!(publish_each(&in_order(&["sent", "sent", "sent"]), message), Ok(expected));
}

#[test]
fn messages_of_different_keys_go_out_together() {
    let row = |key: &str, fate: &str| {
        let builder = Signal::builder("OrderPlaced").attribute("ordered", "true").attribute("order_key", "key");
        builder.column("key", key).column("fate", fate).build()
    };
    let rows = [row("a", "1"), row("a", "2"), row("b", "3"), row("a", "4"), row("b", "none"), row("b", "5"), row("c", "6")];
    let make = |signal: &Signal| match signal.get("fate")? {
        "none" => Err(Error::reject("broken")),
        fate => Ok(Message::new("bus", "orders").id(fate)),
    };
    let calls = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = calls.clone();
    testing::publish_with(move |messages| {
        let ids: Vec<String> = messages.iter().filter_map(|message| message.id.clone()).collect();
        let answer = |id: &String| if id == "2" { Outcome::retry("full") } else { Outcome::Sent };
        let answers = ids.iter().map(answer).collect();
        seen.borrow_mut().push(ids);
        Ok(answers)
    });
    let retry = |reason: &str| Outcome::retry(reason);
    let sent = Outcome::Sent;
    let expected = [sent.clone(), retry("full"), sent.clone(), retry(HELD), Outcome::reject("broken"), sent.clone(), sent];
    assert_eq!(publish_each(&rows, make), Ok(expected.to_vec()));
    assert_eq!(*calls.borrow(), [vec!["1", "3", "6"], vec!["2", "5"]]);
    // An outage later keeps what is decided, and tries the rest again.
    let mut first = true;
    testing::publish_with(move |messages| match std::mem::replace(&mut first, false) {
        true => Ok(vec![Outcome::Sent; messages.len()]),
        false => Err(Error::unavailable("down")),
    });
    let outcomes = publish_each(&rows, make).unwrap();
    assert_eq!((&outcomes[0], &outcomes[1], &outcomes[3]), (&Outcome::Sent, &retry("down"), &retry("down")));
    testing::publish_with(|_| Err(Error::unavailable("down")));
    assert_eq!(publish_each(&rows[..4], make), Err(Error::unavailable("down")));
}
