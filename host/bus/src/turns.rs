//! Order on a bus that has no means to keep it: one message of each run at a time.

use tokio::time::Instant;

use super::{Bus, Receipt, Run, goes_on, hold};
use signalbus_core::message::Message;
use signalbus_core::signal::Outage;

/// Publishes runs: the first message of each together, then the second of those that go on, and so forth.
///
/// # Errors
/// There is no connection: nothing was published.
pub(super) async fn publish(bus: &(impl Bus + ?Sized), runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
    let mut receipts: Vec<Vec<Receipt>> = runs.iter().map(|run| Vec::with_capacity(run.len())).collect();
    loop {
        let next: Vec<usize> = (0..runs.len()).filter(|run| goes_on(&receipts[*run])).collect();
        let next: Vec<_> = next.into_iter().filter_map(|run| Some((run, runs[run].get(receipts[run].len())?))).collect();
        if next.is_empty() {
            return Ok(hold(runs, receipts));
        }
        let messages: Vec<Message> = next.iter().map(|(_, message)| (*message).clone()).collect();
        match bus.publish(&messages, deadline).await {
            Ok(told) => next.iter().zip(told).for_each(|((run, _), receipt)| receipts[*run].push(receipt)),
            Err(outage) if receipts.iter().all(Vec::is_empty) => return Err(outage),
            Err(_) => return Ok(hold(runs, receipts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::{Receiving, outage, reject, unavailable};
    use super::*;
    use signalbus_core::signal::Outcome;

    /// Decides on each message by its id, and records the ids of those that are published together.
    struct Deciding(fn(&str) -> Receipt, Mutex<Vec<String>>);

    impl Bus for Deciding {
        fn publish<'a>(&'a self, messages: &'a [Message], _: Instant) -> Receiving<'a> {
            let ids: Vec<&str> = messages.iter().filter_map(|message| message.id.as_deref()).collect();
            self.1.lock().unwrap().push(ids.join(" "));
            let receipts: Vec<Receipt> = ids.iter().map(|id| self.0(id)).collect();
            let is_away = receipts.iter().all(Result::is_err);
            Box::pin(std::future::ready(if is_away { Err(unavailable("away")) } else { Ok(receipts) }))
        }
    }

    async fn published(decide: fn(&str) -> Receipt) -> (Result<Vec<Vec<Receipt>>, Outage>, Vec<String>) {
        let run = |ids: &[&str]| -> Vec<Message> {
            ids.iter().map(|id| Message { id: Some((*id).to_owned()), ..Message::default() }).collect()
        };
        let runs = [run(&["a1", "a2", "a3"]), run(&[]), run(&["b1", "b2"]), run(&["c1"])];
        let bus = Deciding(decide, Mutex::default());
        let receipts = bus.publish_in_order(&runs.each_ref().map(Vec::as_slice), Instant::now()).await;
        (receipts, bus.1.into_inner().unwrap())
    }

    #[tokio::test]
    async fn one_message_of_each_run_is_published_at_a_time() {
        let (receipts, calls) = published(|_| Ok(Outcome::Sent)).await;
        assert_eq!(receipts.unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 2, 1]);
        assert_eq!(calls, ["a1 b1 c1", "a2 b2", "a3"]);
    }

    #[tokio::test]
    async fn nothing_is_published_behind_a_failure() {
        let (receipts, calls) = published(|id| match id {
            "a2" => Ok(reject("bad")),
            "b1" => Err(outage("late")),
            _ => Ok(Outcome::Sent),
        })
        .await;
        let [sent, held] = [Ok(Outcome::Sent), Ok(Outcome::Held)];
        let told = [vec![sent.clone(), Ok(reject("bad")), held.clone()], vec![], vec![Err(outage("late")), held], vec![sent]];
        assert_eq!((receipts.unwrap(), calls), (told.into(), vec!["a1 b1 c1".to_owned(), "a2".into()]));
    }

    #[tokio::test]
    async fn an_outage_in_the_midst_of_runs_leaves_what_was_sent() {
        let away = |id: &str| if id.ends_with('1') { Ok(Outcome::Sent) } else { Err(outage("away")) };
        let told = published(away).await.0.unwrap();
        assert_eq!(told[0], [Ok(Outcome::Sent), Ok(Outcome::Held), Ok(Outcome::Held)]);
        assert_eq!(published(|_| Err(outage("away"))).await.0, Err(unavailable("away")));
    }
}
