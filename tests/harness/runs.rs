//! Runs: messages that a bus must deliver in their order, published as a relay does, and what must be true of what arrives.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbus::bus::{Buses, ConnectionConfig};
use signalbus::message::{Message, Publisher};
use signalbus::signal::{Outage, Outcome};
use tokio::sync::watch;

use super::PATIENCE;

/// How many runs there are, and how many messages in each.
pub const RUNS: usize = 20;
pub const LENGTH: usize = 200;

/// How many messages of a run go into a call.
const CALL: usize = 40;

/// A connection of its own.
pub fn publisher(url: &str) -> Arc<dyn Publisher> {
    let config = ConnectionConfig::new("bus", url, None, Duration::from_secs(5), vec![], Path::new("")).unwrap();
    Buses::default().open(&config).unwrap()
}

/// Whether the bus is to refuse the messages at this place of their runs: the first, neighbours, the last.
pub fn is_bad(number: usize) -> bool {
    [0, 70, 71, 72, 130, LENGTH - 1].contains(&number)
}

/// Whether those are corrected then, and must still arrive in their place.
fn is_corrected(number: usize) -> bool {
    [71, 130].contains(&number)
}

/// The places in a run of the messages that arrive.
pub fn good() -> Vec<usize> {
    (0..LENGTH).filter(|number| !is_bad(*number) || is_corrected(*number)).collect()
}

/// The message at a place of a run, which its id names.
pub fn message(run: usize, number: usize) -> Message {
    let (id, key) = (Some(format!("{run}:{number}")), Some(run.to_string()));
    Message { id, key, destination: "orders".into(), body: vec![b'x'; 100], ..Message::default() }
}

/// All runs; `spoil` makes those messages bad that the bus is to refuse, and gets the number of the bad ones before.
pub fn runs(spoil: impl Fn(&mut Message, usize)) -> Vec<Vec<Message>> {
    let mut bad = 0;
    let mut at = |run: usize, number: usize| {
        let mut message = message(run, number);
        if is_bad(number) {
            spoil(&mut message, bad);
            bad += 1;
        }
        message
    };
    (0..RUNS).map(|run| (0..LENGTH).map(|number| at(run, number)).collect()).collect()
}

/// Publishes runs until each of their messages was sent, or is bad and was refused. `done` tells how many are.
pub async fn publish(publisher: &dyn Publisher, mut runs: Vec<Vec<Message>>, done: &watch::Sender<usize>) {
    let (mut next, begun) = (vec![0; runs.len()], Instant::now());
    let mut bad: Vec<Vec<usize>> = vec![(0..LENGTH).filter(|number| is_bad(*number)).collect(); runs.len()];
    while next.iter().zip(&runs).any(|(next, run)| *next < run.len()) {
        assert!(begun.elapsed() < PATIENCE, "{next:?}");
        let call = |(next, run): (&usize, &Vec<Message>)| run[*next..].iter().take(CALL).cloned().collect();
        let call: Vec<Vec<Message>> = next.iter().zip(&runs).map(call).collect();
        let lengths: Vec<usize> = call.iter().map(Vec::len).collect();
        let receipts = match publisher.publish_in_order(call).await {
            Ok(receipts) => receipts,
            Err(Outage::Unavailable { after, .. }) => {
                tokio::time::sleep(after.unwrap_or(Duration::from_millis(50))).await;
                continue;
            }
            Err(Outage::Misconfigured { reason }) => panic!("{reason}"),
        };
        assert_eq!(receipts.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        for (run, told) in receipts.into_iter().enumerate() {
            let sent = told.iter().take_while(|receipt| **receipt == Ok(Outcome::Sent)).count();
            assert!(!told[sent..].contains(&Ok(Outcome::Sent)), "{told:?}");
            let (from, to) = (next[run], next[run] + sent);
            next[run] = to;
            assert!(!bad[run].iter().any(|number| (from..to).contains(number)), "{from} {to} {:?}", bad[run]);
            let is_refused = match told.get(sent) {
                Some(Ok(Outcome::Reject { reason })) => {
                    assert!(bad[run].contains(&to), "{to}: {reason}");
                    true
                }
                // A good one may have met a bus that was away.
                Some(Ok(Outcome::Retry { .. })) => bad[run].contains(&to),
                _ => false,
            };
            if is_refused && is_corrected(to) {
                bad[run].retain(|number| *number != to);
                runs[run][to] = Message { id: Some(format!("{run}:{to}")), ..runs[run][1].clone() };
            } else if is_refused {
                next[run] += 1;
            }
        }
        done.send_replace(next.iter().sum());
    }
}

/// The same while something happens, each time when a further part of the messages is done.
pub async fn publish_through(url: &str, runs: &[Vec<Message>], events: &[&(dyn Fn() + Sync)]) {
    let (publisher, own, (done, mut seen)) = (publisher(url), runs.to_vec(), watch::channel(0));
    let all: usize = runs.iter().map(Vec::len).sum();
    let publishing = tokio::spawn(async move { publish(&*publisher, own, &done).await });
    for (number, event) in events.iter().enumerate() {
        if seen.wait_for(|done| *done > all * (number + 1) / (events.len() + 2)).await.is_ok() {
            tokio::task::block_in_place(event);
        }
    }
    publishing.await.unwrap();
}

/// What is promised of a run that meets failures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Repetitions start over; nothing arrives past a gap.
    NoGap,
    /// What may have arrived past a gap is repeated in order.
    Repeated,
}

/// Checks what has arrived, by its ids: all good messages, and each run in its order.
pub fn arrived_in_order(ids: &[String], promise: Promise) {
    let place = |id: &String| -> (usize, usize) {
        let (run, number) = id.split_once(':').unwrap();
        (run.parse().unwrap(), number.parse().unwrap())
    };
    let places: Vec<(usize, usize)> = ids.iter().map(place).collect();
    let good = good();
    println!("{} of {} arrived again", ids.len() - ids.len().min(RUNS * good.len()), ids.len());
    for run in 0..RUNS {
        let numbers: Vec<usize> = places.iter().filter(|place| place.0 == run).map(|place| place.1).collect();
        check_order(run, &numbers, &good, promise);
    }
}

/// Checks what has arrived of one run, of which `good` are all in their order.
pub fn check_order(run: usize, numbers: &[usize], good: &[usize], promise: Promise) {
    let ranks: Vec<usize> =
        numbers.iter().map(|number| good.binary_search(number).unwrap_or_else(|_| panic!("{number}"))).collect();
    if promise == Promise::NoGap {
        let mut next = 0;
        for rank in &ranks {
            assert!(*rank <= next, "run {run}: {numbers:?}");
            next = rank + 1;
        }
    }
    let mut last: Vec<usize> = Vec::new();
    for rank in ranks.iter().rev() {
        if !last.contains(rank) {
            last.push(*rank);
        }
    }
    last.reverse();
    assert_eq!(last, (0..good.len()).collect::<Vec<_>>(), "run {run}: {numbers:?}");
}

#[test]
fn a_gap_or_another_order_is_noticed() {
    let told = |numbers: &'static [usize], promise| {
        std::panic::catch_unwind(move || check_order(0, numbers, &[1, 2, 4], promise)).is_ok()
    };
    for right in [&[1, 2, 4][..], &[1, 2, 1, 2, 4], &[1, 1, 2, 4, 2, 4]] {
        assert!(told(right, Promise::NoGap) && told(right, Promise::Repeated), "{right:?}");
    }
    assert!(told(&[1, 4, 2, 4], Promise::Repeated) && !told(&[1, 4, 2, 4], Promise::NoGap));
    for wrong in [&[1, 4, 2][..], &[1, 2], &[2, 1, 4], &[1, 2, 4, 1], &[1, 2, 4, 3]] {
        assert!(!told(wrong, Promise::NoGap) && !told(wrong, Promise::Repeated), "{wrong:?}");
    }
}
