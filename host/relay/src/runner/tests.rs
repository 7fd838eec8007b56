//! When a runner starts, pauses and ends its workers; the test gives them their answers through `fake`.

use futures::FutureExt as _;
use signalbus_core::signal::{Outcome, Verdict};

use super::*;
use crate::fake::*;

impl FakeRunner {
    /// Returns whether the runner was woken since the last call. Only for one that does not run.
    pub(crate) fn take_woken(&self) -> bool {
        self.wake_up.notified().now_or_never().is_some()
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Starts a runner of one worker.
fn start() -> (Arc<FakeRunner>, Questions) {
    start_with(|_| {})
}

fn start_with(change: impl FnOnce(&mut FakeRunner)) -> (Arc<FakeRunner>, Questions) {
    let (mut runner, asked) = runner("A", LastActivity::new());
    change(&mut runner);
    let runner = Arc::new(runner);
    tokio::spawn(runner.clone().run());
    (runner, asked)
}

fn paused(reason: &str) -> Health {
    Health::Paused { reason: reason.into() }
}

fn misconfigured() -> Verdict {
    Err(Outage::Misconfigured { reason: "no url".into() })
}

/// The verdict on two signals, of which the second was not tried.
fn stalled() -> Verdict {
    Ok(vec![Outcome::retry("trap"), Outcome::Held])
}

/// Gives batch after batch this verdict. Returns the times from each verdict to the next claim.
async fn pauses_after(asked: &mut Questions, verdict: &Verdict, times: usize) -> Vec<Duration> {
    let mut pauses = Vec::new();
    asked.claim(batch(2)).await;
    for _ in 0..times {
        asked.send().await.send(verdict.clone()).unwrap();
        asked.settle(done()).await;
        asked.rescan().await;
        pauses.push(asked.claim(batch(2)).await);
    }
    asked.send().await.send(sent(2)).unwrap();
    asked.settle(done()).await;
    asked.claim(nothing()).await;
    pauses
}

/// Fails claim after claim. Returns the times between them.
async fn pauses_between(asked: &mut Questions, error: &Error, times: usize) -> Vec<Duration> {
    asked.claim(Err(error.clone())).await;
    let mut pauses = Vec::new();
    for _ in 1..times {
        pauses.push(asked.claim(Err(error.clone())).await);
    }
    pauses.push(asked.claim(nothing()).await);
    pauses
}

/// Asserts that pauses have these lengths in milliseconds, less up to a fifth of jitter.
fn assert_pauses(pauses: &[Duration], full: &[u32]) {
    assert_eq!(pauses.len(), full.len());
    for (pause, full) in pauses.iter().zip(full) {
        // The runtime's clock goes in whole milliseconds.
        assert!((MS * (full * 4 / 5)..=MS * (full + 1)).contains(pause), "{pauses:?} are not {full:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_looks_at_its_start_and_then_only_when_woken() {
    let (runner, mut asked) = start();
    assert_eq!(asked.claim(nothing()).await, Duration::ZERO);
    asked.none_for(SECOND * 3600).await;
    runner.wake("call");
    assert_eq!(asked.claim(nothing()).await, Duration::ZERO);
    asked.none_for(SECOND * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_deferred_signal_is_claimed_when_it_is_due() {
    let (_, mut asked) = start();
    asked.claim(due_in(SECOND * 5)).await;
    assert_eq!(asked.claim(nothing()).await, SECOND * 5);
    asked.none_for(SECOND * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_claim_is_taken_over() {
    let (_, mut asked) = start();
    asked.claim(claimed_for(SECOND * 5)).await;
    assert_eq!(asked.claim(nothing()).await, SECOND * 5 + MS * 10);
    asked.none_for(SECOND * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_starts_another_worker_up_to_the_concurrency() {
    let (runner, mut asked) = start_with(|runner| runner.flusher.concurrency = 2.into());
    asked.claim(batch(2)).await;
    let first = asked.send().await;
    asked.claim(batch(2)).await;
    let second = asked.send().await;
    assert_eq!(runner.workers(), 2);
    asked.none_for(MS).await;
    for answer in [first, second] {
        answer.send(sent(2)).unwrap();
        asked.settle(done()).await;
        asked.claim(nothing()).await;
    }
    asked.none_for(SECOND * 3600).await;
    assert_eq!((runner.workers(), runner.tally.total()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_smaller_batch_starts_no_other_worker() {
    let (runner, mut asked) = start_with(|runner| runner.flusher.concurrency = 2.into());
    asked.claim(batch(1)).await;
    let _answer = asked.send().await;
    asked.none_for(MS).await;
    assert_eq!(runner.workers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_while_every_worker_is_busy_is_not_lost() {
    let (runner, mut asked) = start();
    asked.claim(batch(1)).await;
    let answer = asked.send().await;
    runner.wake("commit");
    asked.none_for(MS).await;
    answer.send(sent(1)).unwrap();
    asked.settle(done()).await;
    asked.claim(nothing()).await;
    assert_eq!(asked.claim(nothing()).await, Duration::ZERO);
    asked.none_for(SECOND * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_type_pauses_for_as_long_as_its_bus_asks() {
    let (_, mut asked) = start();
    let pauses = pauses_after(&mut asked, &unavailable(Some(SECOND * 7)), 3).await;
    assert_eq!(pauses, [SECOND * 7; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_cannot_ask_for_pauses_that_are_too_short_or_too_long() {
    let (_, mut asked) = start();
    let pauses = pauses_after(&mut asked, &unavailable(Some(Duration::ZERO)), 7).await;
    assert_pauses(&pauses, &[100, 200, 400, 800, 1600, 3000, 3000]);
    let (_, mut asked) = start();
    let pauses = pauses_after(&mut asked, &unavailable(Some(Duration::MAX)), 2).await;
    assert_eq!(pauses, [SECOND * 3600; 2]);
}

#[tokio::test(start_paused = true)]
async fn pauses_after_outages_double_up_to_three_seconds() {
    let (_, mut asked) = start();
    let pauses = pauses_after(&mut asked, &unavailable(None), 5).await;
    assert_pauses(&pauses, &[1000, 2000, 3000, 3000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn pauses_are_short_again_after_a_recovery() {
    let (runner, mut asked) = start();
    for _ in 0..2 {
        let pauses = pauses_after(&mut asked, &unavailable(None), 2).await;
        assert_pauses(&pauses, &[1000, 2000]);
        assert_eq!(runner.health(), Health::Healthy);
        runner.wake("call");
    }
    // Finding nothing is a recovery, too.
    for _ in 0..2 {
        let pauses = pauses_between(&mut asked, &refused(false), 2).await;
        assert_pauses(&pauses, &[1000, 2000]);
        asked.none_for(MS).await;
        assert_eq!(runner.health(), Health::Healthy);
        runner.wake("call");
    }
}

#[tokio::test(start_paused = true)]
async fn a_misconfigured_plugin_pauses_for_a_minute() {
    let (_, mut asked) = start();
    assert_eq!(pauses_after(&mut asked, &misconfigured(), 3).await, [SECOND * 60; 3]);
}

#[tokio::test(start_paused = true)]
async fn pauses_of_a_failing_plugin_double_up_to_a_minute() {
    let (_, mut asked) = start();
    let pauses = pauses_after(&mut asked, &stalled(), 8).await;
    assert_pauses(&pauses, &[1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
}

#[tokio::test(start_paused = true)]
async fn a_rolled_back_plugin_is_called_at_once() {
    for verdict in [misconfigured(), stalled()] {
        let (runner, mut asked) = start();
        runner.generations.0.store(true, Relaxed);
        let pauses = pauses_after(&mut asked, &verdict, 2).await;
        assert!(pauses[0] <= MS && pauses[1] > SECOND, "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_after_a_database_error_depend_on_its_kind() {
    let (_, mut asked) = start();
    assert_pauses(&pauses_between(&mut asked, &unreachable(), 8).await, &[50, 100, 200, 400, 800, 1600, 2000, 2000]);
    let (_, mut asked) = start();
    assert_pauses(&pauses_between(&mut asked, &refused(false), 7).await, &[1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    let (_, mut asked) = start();
    assert_eq!(pauses_between(&mut asked, &refused(true), 5).await, [MS * 20; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_pauses_for_half_a_minute() {
    let panics = |_: &_, _: &[_]| -> Verdict { panic!("of a test") };
    let (runner, mut asked) = start_with(|runner| runner.flusher.sender = Arc::new(panics));
    asked.claim(batch(1)).await;
    asked.none_for(SECOND).await;
    let Health::Paused { reason } = runner.health() else { panic!("not paused") };
    assert!(reason.starts_with("a worker panicked: "), "{reason}");
    assert_eq!(asked.claim(nothing()).await, SECOND * 29);
}

#[tokio::test(start_paused = true)]
async fn a_paused_type_says_why_until_it_works_again() {
    let (runner, mut asked) = start();
    let mut ask = async |verdict: Verdict, reason: &str| {
        asked.claim(batch(2)).await;
        asked.send().await.send(verdict).unwrap();
        asked.settle(done()).await;
        asked.rescan().await;
        asked.none_for(MS).await;
        assert_eq!(runner.health(), paused(reason));
        assert_eq!(runner.view(None), None);
    };
    ask(unavailable(None), "the bus is not available: down").await;
    ask(misconfigured(), "the plugin is misconfigured: no url").await;
    ask(stalled(), "the plugin fails: trap").await;
    asked.claim(Err(unreachable())).await;
    asked.none_for(MS).await;
    assert_eq!(runner.health(), paused("database: no answer"));
    // The next try is still under way.
    asked.claim(batch(1)).await;
    let answer = asked.send().await;
    assert_eq!(runner.health(), paused("database: no answer"));
    answer.send(sent(1)).unwrap();
    asked.settle(done()).await;
    asked.claim(nothing()).await;
    assert_eq!(runner.health(), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_unsettled_batch_is_reported() {
    let (runner, mut asked) = start();
    for end in [done(), Ok(signalbus_outbox::Settled::Fenced)] {
        asked.claim(batch(1)).await;
        asked.send().await.send(sent(1)).unwrap();
        asked.settle(Err(unreachable())).await;
        asked.none_for(MS).await;
        assert_eq!(runner.health(), paused("database: no answer"));
        asked.settle(end).await;
        asked.claim(nothing()).await;
        assert_eq!(runner.health(), Health::Healthy);
        runner.wake("call");
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_fails_after_three_batches_without_a_sent_signal() {
    let (runner, mut asked) = start();
    let failed = || Ok(vec![Outcome::retry("full")]);
    let next = async |asked: &mut Questions| asked.batch(1, failed()).await;
    for _ in 0..2 {
        for _ in 0..2 {
            next(&mut asked).await;
        }
        asked.claim(due_in(SECOND)).await;
        assert_eq!(runner.health(), Health::Healthy);
        next(&mut asked).await;
        asked.claim(due_in(SECOND)).await;
        assert_eq!(runner.health(), Health::Failing { reason: "full".into() });
        asked.batch(1, sent(1)).await;
        asked.claim(due_in(SECOND)).await;
        assert_eq!(runner.health(), Health::Healthy);
    }
    for _ in 0..3 {
        next(&mut asked).await;
    }
    // Nothing is left that could fail.
    asked.claim(nothing()).await;
    asked.none_for(MS).await;
    assert_eq!(runner.health(), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_wake_does_not_end_a_pause() {
    let (runner, mut asked) = start();
    asked.batch(2, unavailable(Some(SECOND * 7))).await;
    asked.rescan().await;
    asked.none_for(SECOND).await;
    runner.wake("commit");
    assert_eq!(asked.claim(nothing()).await, SECOND * 6);
    asked.none_for(SECOND * 3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_repaired_plugin_ends_a_pause() {
    let (runner, mut asked) = start();
    asked.batch(2, misconfigured()).await;
    asked.rescan().await;
    asked.none_for(SECOND).await;
    runner.resume();
    assert_eq!(asked.claim(nothing()).await, Duration::ZERO);
    asked.none_for(SECOND * 3600).await;
    assert_eq!(runner.health(), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_paused_type_starts_no_worker() {
    let (runner, mut asked) = start_with(|runner| runner.flusher.concurrency = 3.into());
    asked.claim(batch(2)).await;
    let first = asked.send().await;
    asked.claim(batch(1)).await;
    let _second = asked.send().await;
    first.send(unavailable(Some(SECOND))).unwrap();
    asked.settle(done()).await;
    asked.rescan().await;
    asked.none_for(MS).await;
    assert_eq!(runner.workers(), 1);
    runner.wake("commit");
    assert_eq!(asked.claim(nothing()).await, SECOND - MS);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_workers_to_settle() {
    let (runner, mut asked) = start();
    asked.claim(batch(1)).await;
    let answer = asked.send().await;
    runner.stop.cancel();
    asked.none_for(SECOND).await;
    assert!(!runner.ended.is_cancelled());
    answer.send(sent(1)).unwrap();
    asked.settle(done()).await;
    runner.ended.cancelled().await;
    assert_eq!((runner.workers(), runner.tally.total()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_pause() {
    let (runner, mut asked) = start();
    asked.batch(2, misconfigured()).await;
    asked.rescan().await;
    asked.none_for(SECOND).await;
    let begun = Instant::now();
    runner.stop.cancel();
    runner.ended.cancelled().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn workers_that_find_nothing_hold_off_thorough_polls() {
    let (runner, mut asked) = start();
    for wait in [10, 20, 40, 80, 160, 250, 250] {
        asked.claim(nothing()).await;
        asked.none_for(MS * (wait - 1)).await;
        assert_eq!(runner.view(None), Some(false));
        asked.none_for(MS).await;
        assert_eq!(runner.view(None), Some(true));
        runner.wake("poll");
    }
    // A claim ends that.
    asked.batch(1, sent(1)).await;
    asked.claim(due_in(SECOND)).await;
    asked.none_for(MS).await;
    assert_eq!(runner.view(None), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_busy_type_is_polled_from_the_start_once_a_second() {
    let (runner, mut asked) = start();
    asked.claim(batch(1)).await;
    let _answer = asked.send().await;
    let last = Instant::now();
    assert_eq!((runner.view(None), runner.view(Some(last))), (Some(true), Some(false)));
    asked.none_for(SECOND - MS).await;
    assert_eq!(runner.view(Some(last)), Some(false));
    asked.none_for(MS).await;
    assert_eq!(runner.view(Some(last)), Some(true));
}

#[tokio::test(start_paused = true)]
async fn an_ordered_type_is_polled_from_the_start_or_not_at_all() {
    let (runner, mut asked) = start_with(|runner| runner.flusher.policy.ordered = true);
    asked.claim(nothing()).await;
    asked.none_for(MS).await;
    assert_eq!(runner.view(None), None);
    asked.none_for(MS * 10).await;
    assert_eq!(runner.view(None), Some(true));
}
