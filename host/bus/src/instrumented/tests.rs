use std::sync::Mutex;
use std::time::Duration;

use super::super::{Receiving, ReceivingRuns, broken, outage, reject};
use super::*;

/// Returns prepared answers, and records the messages that it receives.
#[derive(Default)]
struct Prepared {
    answers: Mutex<Vec<Answer>>,
    received: Mutex<Vec<Vec<String>>>,
}

type Answer = Result<Vec<Receipt>, Outage>;

impl Bus for std::sync::Arc<Prepared> {
    fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
        self.received.lock().unwrap().push(messages.iter().filter_map(|message| message.id.clone()).collect());
        Box::pin(std::future::ready(self.answers.lock().unwrap().remove(0)))
    }
}

fn message(id: &str) -> Message {
    Message { id: Some(id.into()), ..Message::default() }
}

fn instrumented(answers: Vec<Answer>) -> (std::sync::Arc<Prepared>, InstrumentedBus) {
    let config =
        ConnectionConfig::new("b", "amqp://u:pa%20ss@h", None, Duration::from_secs(1), vec![], std::path::Path::new("")).unwrap();
    let prepared = std::sync::Arc::new(Prepared { answers: Mutex::new(answers), ..Prepared::default() });
    let again = prepared.clone();
    (prepared, InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(again.clone())))).unwrap())
}

#[tokio::test]
async fn what_is_confirmed_stands() {
    let told = |reason: &str| Err(unavailable(format!("connection \"b\": {reason}")));
    let part = Ok(vec![Ok(Outcome::Sent), Err(outage("full")), Ok(Outcome::Sent)]);
    let nothing = Ok(vec![Err(outage("full")); 3]);
    let whole = Ok(vec![Ok(Outcome::Sent), Ok(reject("no route")), Ok(Outcome::Sent)]);
    let (prepared, instrumented) = instrumented(vec![part, nothing, Err(unavailable("refused")), whole]);
    let call = || instrumented.publish_measured(vec![message("1"), message("2"), message("3")]);
    assert_eq!(call().await, Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Sent]));
    assert_eq!(call().await, told("full"));
    assert_eq!(call().await, told("refused"));
    assert_eq!(call().await, Ok(vec![Outcome::Sent, reject("no route"), Outcome::Sent]));
    let received = prepared.received.lock().unwrap().clone();
    assert_eq!(received, vec![vec!["1", "2", "3"]; 4]);
}

/// A bus that breaks on some messages.
struct Fragile(std::sync::Arc<Mutex<Vec<usize>>>, fn(&str) -> bool);

impl Bus for Fragile {
    fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
        self.0.lock().unwrap().push(messages.len());
        let breaks = messages.iter().any(|message| message.id.as_deref().is_some_and(self.1));
        let receipt = if breaks { Err(broken("reset")) } else { Ok(Outcome::Sent) };
        Box::pin(std::future::ready(Ok(vec![receipt; messages.len()])))
    }
}

async fn fragile(count: usize, breaks: fn(&str) -> bool) -> (Verdict, Vec<usize>) {
    let config =
        ConnectionConfig::new("b", "amqp://u:p@h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
    let calls = std::sync::Arc::<Mutex<Vec<usize>>>::default();
    let again = calls.clone();
    let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Fragile(again.clone(), breaks))))).unwrap();
    let verdict = bus.publish_measured((1..=count).map(|id| message(&id.to_string())).collect()).await;
    let calls = calls.lock().unwrap().clone();
    (verdict, calls)
}

#[tokio::test(start_paused = true)]
async fn messages_that_break_connections_are_found_by_halves() {
    let (verdict, calls) = fragile(500, |id| ["77", "400"].contains(&id)).await;
    let outcomes = verdict.unwrap();
    for (position, outcome) in outcomes.iter().enumerate() {
        let is_guilty = [76, 399].contains(&position);
        assert_eq!(*outcome == Outcome::Sent, !is_guilty, "{position}: {outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Reject { .. }), is_guilty, "{position}: {outcome:?}");
    }
    assert!(calls.len() < 60, "{calls:?}");
}

/// Then the bus may be at fault.
#[tokio::test(start_paused = true)]
async fn nothing_is_rejected_if_nothing_else_was_confirmed() {
    let (verdict, calls) = fragile(1, |_| true).await;
    assert!(matches!(verdict.unwrap()[..], [Outcome::Retry { .. }]));
    assert_eq!(calls.len(), 4);
    let (verdict, calls) = fragile(500, |_| true).await;
    assert!(verdict.is_err() && calls.len() < 40, "{verdict:?}: {calls:?}");
    // If there are more than there is time for, what was sent counts, and the others are not charged.
    let (verdict, calls) = fragile(500, |id| id.ends_with('7')).await;
    let outcomes = verdict.unwrap();
    let sent = outcomes.iter().filter(|outcome| **outcome == Outcome::Sent).count();
    let charged = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Retry { .. })).count();
    assert!(sent > 40 && charged == 0 && calls.len() < 200, "{sent}, {charged}: {calls:?}");
}

/// A bus that takes whole runs. It breaks on some messages; what it has taken before may arrive, but is not confirmed.
struct Pipelined(std::sync::Arc<Mutex<Vec<String>>>, fn(&str) -> Receipt);

impl Bus for Pipelined {
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        let runs: Vec<Run<'a>> = messages.chunks(1).collect();
        Box::pin(async move { Ok(self.publish_in_order(&runs, deadline).await?.concat()) })
    }

    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], _: Instant) -> ReceivingRuns<'a> {
        let mut broke = false;
        let told = runs.iter().map(|run| {
            let mut receipts: Vec<Receipt> = Vec::new();
            for id in run.iter().filter_map(|message| message.id.clone()) {
                let receipt = if goes_on(&receipts) { self.1(&id) } else { Ok(Outcome::Held) };
                broke |= receipt.is_err();
                receipts.push(receipt.clone());
                if receipt == Ok(Outcome::Sent) {
                    self.0.lock().unwrap().push(id);
                }
            }
            receipts
        });
        let told: Vec<Vec<Receipt>> = told.collect();
        let lost = || runs.iter().map(|run| vec![Err(broken("reset")); run.len()]).collect();
        Box::pin(std::future::ready(Ok(if broke { lost() } else { told })))
    }
}

/// Publishes two runs of a hundred messages, and returns their receipts, and the ids that arrived in the second.
async fn in_order(decide: fn(&str) -> Receipt) -> (Result<Vec<Vec<RunReceipt>>, Outage>, Vec<usize>) {
    let config =
        ConnectionConfig::new("b", "amqp://u:p@h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
    let arrived = std::sync::Arc::<Mutex<Vec<String>>>::default();
    let again = arrived.clone();
    let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Pipelined(again.clone(), decide))))).unwrap();
    let run = |name: &str| (0..100).map(|id| message(&format!("{name}{id}"))).collect::<Vec<_>>();
    let receipts = bus.publish_runs_measured(vec![run("a"), run("b")]).await;
    let arrived = arrived.lock().unwrap();
    (receipts, arrived.iter().filter_map(|id| id.strip_prefix('b')?.parse().ok()).collect())
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_failure_in_a_run_is_held() {
    let (receipts, arrived) = in_order(|id| if id == "a7" { Ok(reject("no")) } else { Ok(Outcome::Sent) }).await;
    let receipts = receipts.unwrap();
    assert_eq!(arrived, (0..100).collect::<Vec<_>>());
    assert_eq!(receipts[1], vec![Ok(Outcome::Sent); 100]);
    assert_eq!(receipts[0][6..9], [Ok(Outcome::Sent), Ok(reject("no")), Ok(Outcome::Held)]);
}

/// Refuses or loses messages by their ids, and records those that are published together.
struct Plain(std::sync::Arc<Mutex<Vec<String>>>, fn(&str) -> Receipt);

impl Bus for Plain {
    fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
        let ids: Vec<&str> = messages.iter().filter_map(|message| message.id.as_deref()).collect();
        self.0.lock().unwrap().push(ids.join(" "));
        let receipts: Vec<Receipt> = ids.iter().map(|id| self.1(id)).collect();
        let is_away = receipts.iter().all(Result::is_err);
        Box::pin(std::future::ready(if is_away { Err(unavailable("away")) } else { Ok(receipts) }))
    }
}

/// Publishes four runs on a bus that has no means to keep an order.
async fn in_turn(decide: fn(&str) -> Receipt) -> (Result<Vec<Vec<RunReceipt>>, Outage>, Vec<String>) {
    let config =
        ConnectionConfig::new("b", "amqp://u:p@h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
    let calls = std::sync::Arc::<Mutex<Vec<String>>>::default();
    let again = calls.clone();
    let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Plain(again.clone(), decide))))).unwrap();
    let runs = [["a1", "a2", "a3"].as_slice(), &[], &["b1", "b2"], &["c1"]];
    let receipts = bus.publish_runs_measured(runs.map(|run| run.iter().map(|id| message(id)).collect()).into()).await;
    let calls = calls.lock().unwrap().clone();
    (receipts, calls)
}

#[tokio::test(start_paused = true)]
async fn a_bus_without_order_gets_one_message_of_each_run_at_a_time() {
    let (receipts, calls) = in_turn(|_| Ok(Outcome::Sent)).await;
    assert_eq!(receipts.unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 2, 1]);
    assert_eq!(calls, ["a1 b1 c1", "a2 b2", "a3"]);
    let (receipts, calls) = in_turn(|id| if id == "a2" { Ok(reject("bad")) } else { Ok(Outcome::Sent) }).await;
    assert_eq!(receipts.unwrap()[0], [Ok(Outcome::Sent), Ok(reject("bad")), Ok(Outcome::Held)]);
    assert_eq!(calls, ["a1 b1 c1", "a2 b2"]);
}

/// What is not confirmed may have arrived; what was not tried has not.
#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_told_from_what_is_held() {
    let sent = || Ok(Outcome::Sent);
    let away = |reason: &str| unavailable(format!("connection \"b\": {reason}"));
    let receipts = in_turn(|id| if id == "b1" { Err(outage("late")) } else { Ok(Outcome::Sent) }).await.0.unwrap();
    let held = Ok(Outcome::Held);
    assert_eq!(receipts, [vec![sent(), held.clone(), held.clone()], vec![], vec![Err(away("late")), held.clone()], vec![sent()]]);
    let receipts = in_turn(|id| if id.ends_with('1') { Ok(Outcome::Sent) } else { Err(outage("away")) }).await.0.unwrap();
    assert_eq!(receipts[0], [sent(), held.clone(), held]);
    assert_eq!(in_turn(|_| Err(outage("away"))).await.0, Err(away("away")));
}

/// Each repetition starts over with what was not confirmed.
#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_connections_is_found_in_its_run() {
    let (receipts, arrived) = in_order(|id| if id == "b70" { Err(broken("reset")) } else { Ok(Outcome::Sent) }).await;
    let receipts = receipts.unwrap();
    assert_eq!(receipts[0], vec![Ok(Outcome::Sent); 100]);
    assert!(matches!(&receipts[1][70], Ok(Outcome::Reject { reason }) if reason.contains("broke 3 connections")));
    assert!(receipts[1][..70].iter().all(|receipt| *receipt == Ok(Outcome::Sent)), "{receipts:?}");
    assert!(receipts[1][71..].iter().all(|receipt| *receipt == Ok(Outcome::Held)), "{receipts:?}");
    let mut seen = 0;
    for id in &arrived {
        assert!(*id <= seen, "{arrived:?}");
        seen = seen.max(id + 1);
    }
    assert!(seen == 70 && arrived.len() < 70 * 6, "{arrived:?}");
}

/// Then the bus may be at fault, and what follows was not tried.
#[tokio::test(start_paused = true)]
async fn a_run_that_breaks_every_connection_is_charged_for_its_first_message_only() {
    let (receipts, arrived) = in_order(|_| Err(broken("reset"))).await;
    for run in receipts.unwrap() {
        assert!(matches!(run[0], Ok(Outcome::Retry { .. })), "{run:?}");
        assert_eq!(run[1..], vec![Ok(Outcome::Held); 99]);
    }
    assert!(arrived.is_empty());
}

/// A bus that takes a millisecond for each byte of a message's body.
struct Slow(std::sync::Arc<Mutex<Vec<usize>>>);

impl Bus for Slow {
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        self.0.lock().unwrap().push(messages.len());
        Box::pin(async move {
            let mut receipts = Vec::new();
            for message in messages {
                let time = Duration::from_millis(u64::try_from(message.body.len()).unwrap());
                let confirmed = tokio::time::timeout_at(deadline, tokio::time::sleep(time)).await;
                receipts.push(confirmed.map(|()| Outcome::Sent).map_err(|_| outage("no confirmation in time")));
            }
            Ok(receipts)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_begins_nothing_that_may_not_end_in_time() {
    let config = ConnectionConfig::new("b", "amqp://h", None, Duration::from_secs(10), vec![], std::path::Path::new("")).unwrap();
    let calls = std::sync::Arc::<Mutex<Vec<usize>>>::default();
    let again = calls.clone();
    let bus = InstrumentedBus::with(&config, Box::new(move || Ok(Box::new(Slow(again.clone()))))).unwrap();
    // Each takes 228 bytes on its way, and a tenth of a second.
    let messages = vec![Message { body: vec![0; 100], ..Message::default() }; 1000];
    let call = async || bus.publish_measured(messages.clone()).await.unwrap();
    let sent = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| **outcome == Outcome::Sent).count();
    let (first, begun) = (call().await, Instant::now());
    assert_eq!((sent(&first), &first[99..101]), (100, &[Outcome::Sent, Outcome::Held][..]));
    for _ in 0..5 {
        let outcomes = call().await;
        assert!((50..=100).contains(&sent(&outcomes)), "{}", sent(&outcomes));
    }
    assert!(begun.elapsed() <= Duration::from_secs(50), "{:?}", begun.elapsed());
    // What was published twice is a part of the first call.
    assert!(calls.lock().unwrap()[1..].iter().all(|part| *part < 100), "{:?}", calls.lock().unwrap());
}

#[tokio::test]
async fn passwords_are_redacted_in_reasons() {
    let (_, instrumented) = instrumented(vec![Err(unavailable("amqp://u:pa%20ss@h, pa ss"))]);
    let Err(Outage::Unavailable { reason, .. }) = instrumented.publish_measured(vec![message("1")]).await else { panic!() };
    assert_eq!(reason, "connection \"b\": amqp://u:[secret]@h, [secret]");
}
