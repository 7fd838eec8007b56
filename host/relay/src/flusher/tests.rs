//! How a flusher works through claims, and what it does after each answer; the test gives the answers
//! through `fake`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinHandle;

use super::*;
use crate::fake::*;

/// A worker in a task of its own, and what it asks.
struct Started {
    asked: Questions,
    tally: Arc<Tally>,
    stop: CancellationToken,
    ended: JoinHandle<Result<NextWork, Halt>>,
}

impl Started {
    /// Starts `Flusher::work`.
    fn work(patience: Patience) -> Self {
        Self::start(patience, |flusher, tally, stop| async move { flusher.work(None, &*tally, &stop).await })
    }

    /// Starts `Flusher::flush`.
    fn flush() -> Self {
        Self::start(Patience::ONE_SHOT, |flusher, tally, stop| async move {
            flusher.flush(None, &tally, &stop).await.map(|()| NextWork::default())
        })
    }

    fn start<F>(patience: Patience, run: impl FnOnce(Flusher<FakeTable>, Arc<Tally>, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<NextWork, Halt>> + Send + 'static,
    {
        let (table, asked) = FakeTable::for_type("A");
        let (tally, stop) = (Arc::<Tally>::default(), CancellationToken::new());
        let ended = tokio::spawn(run(table.flusher(patience), tally.clone(), stop.clone()));
        Self { asked, tally, stop, ended }
    }

    /// Waits for the end, before which nothing more may be asked.
    async fn end(mut self) -> Result<NextWork, Halt> {
        let question = self.asked.until_ended().await;
        assert!(question.is_none(), "{question:?}");
        self.ended.await.unwrap()
    }
}

fn retried(reason: &str) -> Outcome {
    Outcome::retry(reason)
}

#[tokio::test(start_paused = true)]
async fn batches_are_claimed_sent_and_settled_until_nothing_is_due() {
    let mut worker = Started::work(Patience::FOREVER);
    for _ in 0..3 {
        assert_eq!(worker.asked.batch(2, sent(2)).await.delete, [0, 1]);
    }
    worker.asked.claim(due_in(Duration::from_secs(5))).await;
    let tally = worker.tally.clone();
    let next = worker.end().await.unwrap();
    assert_eq!(next, NextWork { due_in: Some(Duration::from_secs(5)), claimed_for: None });
    assert_eq!((tally.sent.load(Relaxed), tally.total()), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn the_next_claim_looks_for_signals_left_behind() {
    let mut worker = Started::work(Patience::FOREVER);
    let settlement = worker.asked.batch(2, Ok(vec![Outcome::Sent, Outcome::Held])).await;
    assert_eq!(settlement.delete, [0]);
    worker.asked.rescan().await;
    worker.asked.claim(nothing()).await;
    worker.end().await.unwrap();
}

/// What is claimed ahead is sent in batches, each of which is settled while the next is under way.
#[tokio::test(start_paused = true)]
async fn a_batch_is_settled_while_the_next_is_sent() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(5)).await;
    worker.asked.send().await.send(sent(2)).unwrap();
    for answered_first in [true, false] {
        let Asked::Settle(settlement, settled) = worker.asked.next().await else { panic!("not a settle") };
        assert_eq!(settlement.delete, [0, 1]);
        let answer = worker.asked.send().await;
        let verdict = sent(if answered_first { 2 } else { 1 });
        if answered_first {
            answer.send(verdict).unwrap();
            worker.asked.none_for(RENEWAL / 2).await;
            settled.send(done()).unwrap();
        } else {
            settled.send(done()).unwrap();
            worker.asked.none_for(Duration::from_millis(1)).await;
            answer.send(verdict).unwrap();
        }
    }
    assert_eq!(worker.asked.settle(done()).await.delete, [0]);
    worker.asked.claim(nothing()).await;
    assert_eq!(worker.tally.total(), 5);
    worker.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_behind_what_stays() {
    for outcome in [retried("no"), Outcome::Held, Outcome::Reject { reason: "no".into() }] {
        let mut worker = Started::work(Patience::FOREVER);
        worker.asked.claim(batch(5)).await;
        worker.asked.send().await.send(sent(2)).unwrap();
        worker.asked.settle(done()).await;
        worker.asked.send().await.send(Ok(vec![Outcome::Sent, outcome.clone()])).unwrap();
        assert_eq!(worker.asked.settle(done()).await.delete, [0]);
        if outcome == Outcome::Held {
            worker.asked.rescan().await;
        }
        worker.asked.claim(nothing()).await;
        worker.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_what_was_claimed_ahead() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(5)).await;
    let answer = worker.asked.send().await;
    worker.stop.cancel();
    answer.send(sent(2)).unwrap();
    assert_eq!(worker.asked.settle(done()).await.delete, [0, 1]);
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_claim_lost_at_a_settle_cancels_the_call_that_is_under_way() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(5)).await;
    worker.asked.send().await.send(sent(2)).unwrap();
    let Asked::Settle(_, settled) = worker.asked.next().await else { panic!("not a settle") };
    let answer = worker.asked.send().await;
    settled.send(Ok(Settled::Fenced)).unwrap();
    worker.asked.claim(nothing()).await;
    assert!(answer.is_closed());
    assert_eq!((worker.tally.total(), worker.tally.fenced.load(Relaxed)), (0, 1));
    worker.end().await.unwrap();
}

/// The database is silent: another relay may have the claim by now.
#[tokio::test(start_paused = true)]
async fn a_settle_without_an_answer_cancels_the_call_when_the_lease_is_over() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(5)).await;
    worker.asked.send().await.send(sent(2)).unwrap();
    let Asked::Settle(_, settled) = worker.asked.next().await else { panic!("not a settle") };
    let mut answer = worker.asked.send().await;
    let begun = Instant::now();
    answer.closed().await;
    assert_eq!(begun.elapsed(), LEASE - FRESH);
    settled.send(done()).unwrap();
    worker.asked.claim(nothing()).await;
    assert_eq!(worker.tally.total(), 2);
    worker.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_renewed_while_the_plugin_runs_and_no_longer() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    let answer = worker.asked.send().await;
    for _ in 0..5 {
        assert_eq!(worker.asked.renew(Ok(true)).await, RENEWAL);
    }
    worker.asked.none_for(RENEWAL - Duration::from_millis(1)).await;
    answer.send(sent(1)).unwrap();
    let Asked::Settle(_, settled) = worker.asked.next().await else { panic!("not a settle") };
    worker.asked.none_for(RENEWAL * 10).await;
    settled.send(done()).unwrap();
    worker.asked.claim(nothing()).await;
    worker.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_is_finished_before_the_settle() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    let answer = worker.asked.send().await;
    let Asked::Renew(renewed) = worker.asked.next().await else { panic!("not a renewal") };
    answer.send(sent(1)).unwrap();
    worker.asked.none_for(RENEWAL * 10).await;
    renewed.send(Ok(true)).unwrap();
    worker.asked.settle(done()).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_repeated_after_the_usual_time() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    let answer = worker.asked.send().await;
    for renewed in [Err(unreachable()), Err(refused(false)), Ok(true)] {
        assert_eq!(worker.asked.renew(renewed).await, RENEWAL);
    }
    answer.send(sent(1)).unwrap();
    assert_eq!(worker.asked.settle(done()).await.delete, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_cancelled_when_its_claim_is_lost() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    let answer = worker.asked.send().await;
    worker.asked.renew(Ok(false)).await;
    // Nothing is settled.
    worker.asked.claim(nothing()).await;
    assert!(answer.is_closed());
    worker.end().await.unwrap();
}

/// The database is silent, or the relay was frozen.
#[tokio::test(start_paused = true)]
async fn a_call_is_cancelled_when_its_lease_is_over() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    let answer = worker.asked.send().await;
    let Asked::Renew(_silent) = worker.asked.next().await else { panic!("not a renewal") };
    assert_eq!(worker.asked.claim(nothing()).await, LEASE - FRESH - RENEWAL);
    assert!(answer.is_closed());
    worker.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_suspect_batch_is_charged_an_attempt_without_the_plugin() {
    let mut worker = Started::work(Patience::FOREVER);
    let Ok(Claimed::Batch(mut batch)) = batch(1) else { panic!("not a batch") };
    batch.suspect = true;
    worker.asked.claim(Ok(Claimed::Batch(batch))).await;
    let settlement = worker.asked.settle(done()).await;
    assert_eq!(settlement.defer[0].reason, "the relay died twice while sending this signal");
}

#[tokio::test(start_paused = true)]
async fn a_settle_is_retried_for_as_long_as_the_database_is_unreachable() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    worker.asked.send().await.send(sent(1)).unwrap();
    let mut waits = Vec::new();
    for tries in 0..1000 {
        let begun = Instant::now();
        // A deadlock is retried in the same way.
        let error = if tries % 2 == 0 { unreachable() } else { refused(true) };
        worker.asked.settle(Err(error)).await;
        waits.push(begun.elapsed().as_millis());
    }
    assert_eq!(waits[..5], [0, 50, 100, 150, 200]);
    assert_eq!(waits[19..23], [950, 1000, 1000, 1000]);
    assert_eq!(worker.asked.settle(done()).await.delete, [0]);
    worker.asked.claim(nothing()).await;
    assert_eq!(worker.tally.total(), 1);
    worker.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_gives_up_a_settle_after_a_minute() {
    let mut worker = Started::work(Patience::ONE_SHOT);
    worker.asked.claim(batch(1)).await;
    worker.asked.send().await.send(sent(1)).unwrap();
    let begun = Instant::now();
    while let Some(question) = worker.asked.until_ended().await {
        let Asked::Settle(_, answer) = question else { panic!("not a settle") };
        answer.send(Err(unreachable())).unwrap();
    }
    assert!(begun.elapsed().abs_diff(Duration::from_secs(60)) <= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(worker.tally.total(), 0);
    assert!(matches!(worker.end().await, Err(Halt::Database(error)) if error.is_unreachable()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_settle_ends_the_work() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    worker.asked.send().await.send(sent(1)).unwrap();
    worker.asked.settle(Err(refused(false))).await;
    let tally = worker.tally.clone();
    assert!(matches!(worker.end().await, Err(Halt::Database(error)) if error.kind() == "refused"));
    assert_eq!(tally.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_settle_is_counted_once() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(2)).await;
    worker.asked.send().await.send(sent(2)).unwrap();
    worker.asked.settle(Ok(Settled::Fenced)).await;
    worker.asked.claim(nothing()).await;
    let tally = worker.tally.clone();
    worker.end().await.unwrap();
    assert_eq!((tally.fenced.load(Relaxed), tally.total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_counts_as_settled() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(2)).await;
    worker.asked.send().await.send(sent(2)).unwrap();
    worker.asked.settle(Err(unreachable())).await;
    worker.asked.settle(Ok(Settled::Fenced)).await;
    worker.asked.claim(nothing()).await;
    let tally = worker.tally.clone();
    worker.end().await.unwrap();
    assert_eq!((tally.fenced.load(Relaxed), tally.total()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_the_work_and_changes_no_row() {
    let mut worker = Started::work(Patience::FOREVER);
    let settlement = worker.asked.batch(2, unavailable(None)).await;
    assert_eq!((settlement.delete.len(), settlement.defer.len(), settlement.bury.len()), (0, 0, 0));
    worker.asked.rescan().await;
    assert!(matches!(worker.end().await, Err(Halt::Outage(Outage::Unavailable { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_fails_for_every_signal_ends_the_work() {
    let mut worker = Started::work(Patience::FOREVER);
    let settlement = worker.asked.batch(2, Ok(vec![retried("trap"), Outcome::Held])).await;
    assert_eq!(settlement.defer.len(), 1);
    worker.asked.rescan().await;
    assert!(matches!(worker.end().await, Err(Halt::Stalled(reason)) if reason == "trap"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_settles_what_is_in_flight_and_claims_no_more() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(2)).await;
    let answer = worker.asked.send().await;
    worker.stop.cancel();
    worker.asked.none_for(RENEWAL - Duration::from_millis(1)).await;
    // What the stop leaves untried is not a stall.
    answer.send(Ok(vec![retried("trap"), Outcome::Held])).unwrap();
    assert_eq!(worker.asked.settle(done()).await.defer.len(), 1);
    worker.asked.rescan().await;
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_end_the_retries_of_a_settle() {
    let mut worker = Started::work(Patience::FOREVER);
    worker.asked.claim(batch(1)).await;
    worker.asked.send().await.send(sent(1)).unwrap();
    worker.stop.cancel();
    for _ in 0..100 {
        worker.asked.settle(Err(unreachable())).await;
    }
    assert_eq!(worker.asked.settle(done()).await.delete, [0]);
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_claimed_during_a_stop_is_given_to_the_plugin_to_hold() {
    let mut worker = Started::work(Patience::FOREVER);
    let Asked::Claim(answer) = worker.asked.next().await else { panic!("not a claim") };
    worker.stop.cancel();
    worker.asked.none_for(Duration::from_millis(4999)).await;
    answer.send(batch(1)).unwrap();
    worker.asked.send().await.send(Ok(vec![Outcome::Held])).unwrap();
    assert_eq!(worker.asked.settle(done()).await.delete.len(), 0);
    worker.asked.rescan().await;
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_an_answer_is_given_up_five_seconds_after_a_stop() {
    let mut worker = Started::work(Patience::FOREVER);
    let _claim = worker.asked.next().await;
    worker.asked.none_for(Duration::from_secs(100)).await;
    worker.stop.cancel();
    let begun = Instant::now();
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_running_relay_does_not_retry_a_claim() {
    for error in [unreachable(), refused(true), refused(false)] {
        let kind = error.kind();
        let mut worker = Started::work(Patience::FOREVER);
        worker.asked.claim(Err(error)).await;
        let begun = Instant::now();
        assert!(matches!(worker.end().await, Err(Halt::Database(error)) if error.kind() == kind));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_retries_a_claim_with_growing_waits() {
    let mut worker = Started::work(Patience::ONE_SHOT);
    // A success makes the waits short again.
    for _ in 0..2 {
        for wait in [0, 50, 100, 150] {
            assert_eq!(worker.asked.claim(Err(unreachable())).await, Duration::from_millis(wait));
        }
        assert_eq!(worker.asked.claim(batch(1)).await, Duration::from_millis(200));
        worker.asked.send().await.send(sent(1)).unwrap();
        worker.asked.settle(done()).await;
    }
    worker.asked.claim(Err(unreachable())).await;
    worker.stop.cancel();
    assert!(matches!(worker.end().await, Err(Halt::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_the_claims_of_other_relays() {
    let mut flush = Started::flush();
    flush.asked.claim(claimed_for(Duration::from_secs(8))).await;
    for _ in 0..20 {
        assert_eq!(flush.asked.claim(claimed_for(Duration::from_secs(8))).await, RECHECK);
    }
    // A claim that expires sooner is not waited for longer.
    flush.asked.claim(claimed_for(Duration::from_millis(30))).await;
    assert_eq!(flush.asked.claim(batch(1)).await, Duration::from_millis(30));
    flush.asked.send().await.send(sent(1)).unwrap();
    flush.asked.settle(done()).await;
    // What is deferred is not waited for.
    flush.asked.claim(due_in(Duration::from_secs(1))).await;
    flush.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_for_other_relays() {
    let mut flush = Started::flush();
    flush.asked.claim(claimed_for(Duration::from_secs(8))).await;
    flush.stop.cancel();
    let begun = Instant::now();
    assert!(matches!(flush.end().await, Err(Halt::Stopped)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
