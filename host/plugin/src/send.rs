//! The strategy of sending a batch: which calls to make, in which order, and when to stop.
//!
//! Must know nothing of WebAssembly, and must never charge a signal for another's failure. `call`
//! implements the calls.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::backtrace::Backtrace;
use signalbus_core::settlement::wrong_length;
use signalbus_core::signal::{Outcome, Signal, Verdict};

/// A call that ended without an answer; its instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) backtrace: Backtrace,
    /// Whether the call exceeded its deadline.
    pub(super) timed_out: bool,
}

/// How many signals a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    Single,
    /// Many, of which none may be behind another: a call knows no order.
    Many,
    /// Many, of which those with one order key are adjacent and in order.
    Runs,
}

/// The guest calls that send a batch.
pub(super) trait GuestCalls: Send {
    fn calls(&self) -> Calls;

    /// Sends the signals at these positions of the batch in one call.
    ///
    /// # Errors
    /// The call ended without an answer.
    fn send(&mut self, positions: &[usize]) -> impl Future<Output = Result<Verdict, Failure>> + Send;

    /// Returns the time since the first call.
    fn elapsed(&self) -> Duration;

    /// Returns whether to stop early, so that what has been sent can be settled.
    fn is_stopped(&self) -> bool;
}

/// How a batch is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendStrategy {
    /// Whether a retried signal holds back those behind it with the same order key.
    pub(super) ordered: bool,
    /// Whether a rejected signal does, too.
    pub(super) holds_dead: bool,
    /// No further call starts after this time.
    pub(super) patience: Duration,
    /// Maximum size of the signals of a call, if there is more than one.
    pub(super) room: usize,
}

/// Single calls without an answer, and with no answered call before them, after which the plugin is to
/// blame and the rest of the batch is held.
const MAX_FAILURES: usize = 10;

impl SendStrategy {
    /// Sends a batch. Signals whose call failed are sent again one by one, so that a poisonous one does
    /// not use up its neighbours' attempts; signals that a call left untried are sent by the next one.
    pub(super) async fn send(self, signals: &[Signal], calls: &mut impl GuestCalls) -> Verdict {
        let mut progress = Progress::new(self, signals, calls.calls());
        let (mut answered, mut failed) = (false, 0);
        while let Some(positions) = progress.next() {
            if calls.is_stopped() || calls.elapsed() >= self.patience || failed >= MAX_FAILURES {
                break;
            }
            match calls.send(&positions).await {
                Err(failure) if positions.len() == 1 => {
                    failed += usize::from(!answered);
                    progress.answer(&positions, vec![Outcome::retry(failure.reason)]);
                }
                Err(_) => progress.isolate(&positions),
                Ok(Ok(answers)) if answers.len() == positions.len() => {
                    (answered, failed) = (true, 0);
                    progress.answer(&positions, answers);
                }
                Ok(Ok(answers)) if positions.len() == signals.len() => return Ok(answers),
                Ok(Ok(answers)) => {
                    (answered, failed) = (true, 0);
                    progress.answer(&positions, wrong_length(positions.len(), answers.len()));
                }
                Ok(Err(_)) if progress.outcomes.contains(&Outcome::Sent) => break,
                Ok(Err(outage)) => return Err(outage),
            }
        }
        Ok(progress.outcomes)
    }

    /// Returns the signals of each call. In an ordered type a call takes one signal of each order key, so that no signal
    /// overtakes a retried one; unless it takes runs.
    fn calls(self, signals: &[Signal], calls: Calls) -> VecDeque<Vec<usize>> {
        let mut all: Vec<usize> = (0..signals.len()).collect();
        if calls == Calls::Single {
            return all.into_iter().map(|position| vec![position]).collect();
        }
        // A signal that makes the plugin crash each time comes before others are sent, which would be repeated.
        let first = |&position: &usize| Reverse(signals[position].attempt);
        if !self.ordered {
            all.sort_by_key(first);
            return VecDeque::from([all]);
        }
        let mut runs = runs(signals);
        runs.sort_by_key(|run| run.iter().map(first).min());
        if calls == Calls::Runs {
            return VecDeque::from([runs.concat()]);
        }
        let longest = runs.iter().map(Vec::len).max().unwrap_or_default();
        (0..longest).map(|n| runs.iter().filter_map(|run| run.get(n).copied()).collect()).collect()
    }
}

/// Returns the positions of the signals of each order key.
fn runs(signals: &[Signal]) -> Vec<Vec<usize>> {
    let mut places = HashMap::new();
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for (position, signal) in signals.iter().enumerate() {
        let place = *places.entry(signal.order_key.as_str()).or_insert(runs.len());
        if place == runs.len() {
            runs.push(Vec::new());
        }
        runs[place].push(position);
    }
    runs
}

/// A batch that is being sent.
struct Progress<'a> {
    strategy: SendStrategy,
    signals: &'a [Signal],
    outcomes: Vec<Outcome>,
    /// What is left of the last call's signals, by their positions: they may go into one call.
    rest: Vec<usize>,
    /// The signals of further calls.
    due: VecDeque<Vec<usize>>,
    /// Order keys that a signal holds back.
    stopped: HashSet<&'a str>,
    /// Maximum number of signals in a call: as many as the plugin has tried in one, if it has left any.
    most: usize,
    /// Whether a call failed: then calls do not grow any more.
    isolates: bool,
}

impl<'a> Progress<'a> {
    fn new(strategy: SendStrategy, signals: &'a [Signal], calls: Calls) -> Self {
        let (outcomes, due) = (vec![Outcome::Held; signals.len()], strategy.calls(signals, calls));
        let (rest, stopped) = (Vec::new(), HashSet::new());
        Self { strategy, signals, outcomes, rest, due, stopped, most: usize::MAX, isolates: false }
    }

    /// Takes the signals of the next call.
    fn next(&mut self) -> Option<Vec<usize>> {
        loop {
            let mut positions = std::mem::take(&mut self.rest);
            if positions.is_empty() {
                positions = self.due.pop_front()?;
            }
            if self.strategy.ordered {
                positions.retain(|&position| !self.stopped.contains(self.signals[position].order_key.as_str()));
                if positions.is_empty() {
                    continue;
                }
            }
            self.rest = positions.split_off(self.fits(&positions).min(positions.len()));
            return Some(positions);
        }
    }

    /// Returns how many of these signals go into one call.
    fn fits(&self, positions: &[usize]) -> usize {
        let mut room = self.strategy.room;
        let fits = positions.iter().take(self.most).take_while(|position| {
            let left = room.checked_sub(self.signals[**position].size());
            room = left.unwrap_or_default();
            left.is_some()
        });
        fits.count().max(1)
    }

    /// Notes the outcomes of a call.
    fn answer(&mut self, positions: &[usize], answers: Vec<Outcome>) {
        let (mut untried, mut left) = (Vec::new(), 0);
        let mut failed = HashSet::new();
        for (&position, outcome) in positions.iter().zip(answers) {
            let order_key = self.signals[position].order_key.as_str();
            let stops = match outcome {
                Outcome::Held => {
                    untried.push(position);
                    // What is behind a failure, the plugin could not try.
                    left += usize::from(!failed.contains(order_key));
                    continue;
                }
                Outcome::Retry { .. } => true,
                Outcome::Reject { .. } => self.strategy.holds_dead,
                Outcome::Sent | Outcome::Skip => false,
            };
            if self.strategy.ordered && stops {
                self.stopped.insert(order_key);
            }
            if self.strategy.ordered && matches!(outcome, Outcome::Retry { .. } | Outcome::Reject { .. }) {
                failed.insert(order_key);
            }
            self.outcomes[position] = outcome;
        }
        if left > 0 {
            self.most = (positions.len() - left).max(1);
        } else if !self.isolates && positions.len() == self.most {
            // Slowly: what a call leaves untried was passed in for nothing.
            self.most = self.most.saturating_add(self.most.div_ceil(4));
        }
        untried.append(&mut self.rest);
        self.rest = untried;
    }

    /// Lets the signals of a failed call be sent one by one; those that it would have left untried, too.
    fn isolate(&mut self, positions: &[usize]) {
        self.isolates = true;
        if self.most < usize::MAX {
            self.most = 1;
        }
        if !self.rest.is_empty() {
            self.due.push_front(std::mem::take(&mut self.rest));
        }
        positions.iter().rev().for_each(|&position| self.due.push_front(vec![position]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbus_core::signal::Outage;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// What a signal does when it is sent alone; a bulk call fails if one of its signals fails.
    #[derive(Clone, Copy)]
    enum Act {
        Send,
        Skip,
        Retry,
        Reject,
        /// Holds it, in the first call.
        Hold,
        /// Returns no outcome.
        Forget,
        Trap,
        Spin,
        Outage,
    }

    fn failure(reason: &str) -> Failure {
        Failure { reason: reason.into(), backtrace: Backtrace::default(), timed_out: false }
    }

    struct Script {
        calls: Calls,
        acts: Vec<Act>,
        called: Vec<Vec<usize>>,
        spent: Duration,
        /// The number of calls after which the relay is told to stop.
        stop_after: usize,
        /// The number of signals that a call tries.
        share: usize,
    }

    impl Script {
        fn for_acts(acts: &[Act]) -> Self {
            let (called, spent) = (vec![], Duration::ZERO);
            Self { calls: Calls::Many, acts: acts.to_vec(), called, spent, stop_after: usize::MAX, share: usize::MAX }
        }
    }

    impl GuestCalls for Script {
        fn calls(&self) -> Calls {
            self.calls
        }

        async fn send(&mut self, positions: &[usize]) -> Result<Verdict, Failure> {
            self.called.push(positions.to_vec());
            let mut outcomes = Vec::new();
            for (index, &position) in positions.iter().enumerate() {
                outcomes.push(match self.acts[position] {
                    _ if index >= self.share => Outcome::Held,
                    Act::Send => Outcome::Sent,
                    Act::Skip => Outcome::Skip,
                    Act::Retry => Outcome::retry("full"),
                    Act::Reject => Outcome::Reject { reason: "no".into() },
                    Act::Hold if self.called.len() == 1 => Outcome::Held,
                    Act::Hold => Outcome::Sent,
                    Act::Forget => continue,
                    Act::Trap => return Err(failure("trap")),
                    Act::Spin => {
                        self.spent += TIMEOUT;
                        return Err(failure("deadline"));
                    }
                    Act::Outage => return Ok(Err(Outage::Misconfigured { reason: "no url".into() })),
                });
            }
            Ok(Ok(outcomes))
        }

        fn elapsed(&self) -> Duration {
            self.spent
        }

        fn is_stopped(&self) -> bool {
            self.called.len() >= self.stop_after
        }
    }

    async fn send(calls: Calls, order_keys: Option<&str>, acts: &[Act]) -> (Verdict, Vec<Vec<usize>>) {
        send_until(usize::MAX, calls, order_keys, acts).await
    }

    async fn send_until(stop_after: usize, calls: Calls, order_keys: Option<&str>, acts: &[Act]) -> (Verdict, Vec<Vec<usize>>) {
        let keys = order_keys.map(|keys| keys.chars().collect::<Vec<_>>());
        let signals: Vec<Signal> = (0..acts.len())
            .map(|n| Signal {
                id: format!("Order:{n}"),
                key: n.to_string(),
                order_key: keys.as_ref().map(|keys| keys[n].to_string()).unwrap_or_default(),
                attempt: 1,
                values: vec![],
            })
            .collect();
        let mut script = Script { calls, stop_after, ..Script::for_acts(acts) };
        let strategy = SendStrategy { ordered: keys.is_some(), holds_dead: false, patience: 4 * TIMEOUT, room: usize::MAX };
        (strategy.send(&signals, &mut script).await, script.called)
    }

    /// Sends signals at these attempts, without order, through a plugin that tries some in each call.
    async fn send_in_shares(share: usize, acts: &[Act], attempt: impl Fn(usize) -> u32) -> (Verdict, Vec<Vec<usize>>) {
        let signal = |n: usize| Signal {
            id: format!("Order:{n}"),
            key: n.to_string(),
            order_key: String::new(),
            attempt: attempt(n),
            values: vec![],
        };
        let signals: Vec<Signal> = (0..acts.len()).map(signal).collect();
        let mut script = Script { share, ..Script::for_acts(acts) };
        let strategy = SendStrategy { ordered: false, holds_dead: false, patience: 4 * TIMEOUT, room: usize::MAX };
        (strategy.send(&signals, &mut script).await, script.called)
    }

    #[tokio::test]
    async fn what_a_call_leaves_untried_is_sent_by_the_next() {
        let (verdict, called) = send_in_shares(2, &[Act::Send; 9], |_| 1).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent; 9]));
        // As many as were tried, and then one more.
        assert_eq!(called[1..], [vec![2, 3], vec![4, 5, 6], vec![6, 7], vec![8]]);
        let mut acts = [Act::Send; 9];
        acts[4] = Act::Outage;
        let (verdict, called) = send_in_shares(2, &acts, |_| 1).await;
        assert_eq!(verdict.unwrap(), [vec![Outcome::Sent; 4], vec![Outcome::Held; 5]].concat());
        assert_eq!(called.last(), Some(&vec![4, 5, 6]));
    }

    #[tokio::test]
    async fn after_a_failure_untried_signals_go_one_by_one() {
        let mut acts = [Act::Send; 8];
        acts[5] = Act::Trap;
        let (verdict, called) = send_in_shares(3, &acts, |_| 1).await;
        assert_eq!(verdict.unwrap().iter().filter(|outcome| **outcome == Outcome::Sent).count(), 7);
        assert_eq!(called[1..], [vec![3, 4, 5], vec![3], vec![4], vec![5], vec![6], vec![7]]);
    }

    #[tokio::test]
    async fn signals_that_failed_before_come_first() {
        let acts = [Act::Send, Act::Trap, Act::Send, Act::Retry];
        let (verdict, called) = send_in_shares(usize::MAX, &acts, |n| [1, 3, 1, 2][n]).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent, retry("trap"), Outcome::Sent, retry("full")]));
        assert_eq!(called, [vec![1, 3, 0, 2], vec![1], vec![3], vec![0], vec![2]]);
    }

    fn retry(reason: &str) -> Outcome {
        Outcome::retry(reason)
    }

    #[tokio::test]
    async fn a_bulk_answer_is_returned_whatever_its_length() {
        let (verdict, called) = send(Calls::Many, None, &[Act::Send, Act::Forget]).await;
        assert_eq!((verdict, called), (Ok(vec![Outcome::Sent]), vec![vec![0, 1]]));
    }

    #[tokio::test]
    async fn a_poisonous_signal_is_charged_alone() {
        let (verdict, called) = send(Calls::Many, None, &[Act::Send, Act::Trap, Act::Skip]).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent, retry("trap"), Outcome::Skip]));
        assert_eq!(called, [vec![0, 1, 2], vec![0], vec![1], vec![2]]);
        let (verdict, called) = send(Calls::Many, None, &[Act::Trap]).await;
        assert_eq!((verdict, called), (Ok(vec![retry("trap")]), vec![vec![0]]));
    }

    #[tokio::test]
    async fn an_ordered_call_takes_one_signal_of_each_order_key() {
        let (verdict, called) = send(Calls::Many, Some("abaab"), &[Act::Send; 5]).await;
        assert_eq!((verdict, called), (Ok(vec![Outcome::Sent; 5]), vec![vec![0, 1], vec![2, 4], vec![3]]));
        let (verdict, called) = send(Calls::Many, Some("   "), &[Act::Send; 3]).await;
        assert_eq!((verdict, called), (Ok(vec![Outcome::Sent; 3]), vec![vec![0], vec![1], vec![2]]));
        let (verdict, called) =
            send(Calls::Many, Some("abaab"), &[Act::Send, Act::Forget, Act::Send, Act::Send, Act::Send]).await;
        let lost = retry("the plugin answered 1 outcome for 2 signals, expected a list with one for each");
        assert_eq!(
            (verdict, called),
            (Ok(vec![lost.clone(), lost, Outcome::Held, Outcome::Held, Outcome::Held]), vec![vec![0, 1]])
        );
    }

    /// What a plugin answers that takes runs and knows order: behind a failure, the rest of a run is held.
    #[tokio::test]
    async fn a_call_takes_runs() {
        let (verdict, called) = send(Calls::Runs, Some("abaab"), &[Act::Send; 5]).await;
        assert_eq!((verdict, called), (Ok(vec![Outcome::Sent; 5]), vec![vec![0, 2, 3, 1, 4]]));
        let mut acts = [Act::Send; 5];
        (acts[2], acts[3], acts[4]) = (Act::Retry, Act::Hold, Act::Hold);
        let (verdict, called) = send(Calls::Runs, Some("abaab"), &acts).await;
        // The last one was not behind a failure: it goes into another call, until the plugin has tried it.
        assert_eq!(verdict.unwrap(), [Outcome::Sent, Outcome::Sent, retry("full"), Outcome::Held, Outcome::Sent]);
        assert_eq!(called, [vec![0, 2, 3, 1, 4], vec![4]]);
        let reject = [Act::Reject, Act::Hold, Act::Hold, Act::Hold, Act::Hold];
        let (verdict, called) = send(Calls::Runs, Some("     "), &reject).await;
        assert_eq!(verdict.unwrap()[1..], vec![Outcome::Sent; 4]);
        assert_eq!(called, [vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4]]);
    }

    #[tokio::test]
    async fn an_outage_within_a_run_charges_nothing() {
        let acts = [Act::Send, Act::Hold, Act::Hold];
        let (verdict, called) = send_until(1, Calls::Runs, Some("   "), &acts).await;
        assert_eq!((verdict, called.len()), (Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Held]), 1));
        let acts = [Act::Send, Act::Trap, Act::Send, Act::Send];
        let (verdict, called) = send(Calls::Runs, Some("aaab"), &acts).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent, retry("trap"), Outcome::Held, Outcome::Sent]));
        assert_eq!(called, [vec![0, 1, 2, 3], vec![0], vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_failing_order_key_holds_back_only_itself() {
        for (failing, calls) in
            [(Act::Trap, Calls::Single), (Act::Retry, Calls::Single), (Act::Trap, Calls::Many), (Act::Retry, Calls::Many)]
        {
            let acts = [failing, Act::Send, Act::Send, Act::Send];
            let (verdict, called) = send(calls, Some("abab"), &acts).await;
            let outcomes = verdict.unwrap();
            assert_eq!(outcomes[1..], [Outcome::Sent, Outcome::Held, Outcome::Sent]);
            let again = usize::from(calls == Calls::Many && matches!(failing, Act::Trap));
            assert_eq!(called.concat()[2 * again..], [0, 1, 3]);
        }
    }

    #[tokio::test]
    async fn without_order_nothing_is_held_back() {
        let (verdict, _) = send(Calls::Single, None, &[Act::Retry, Act::Send]).await;
        assert_eq!(verdict, Ok(vec![retry("full"), Outcome::Sent]));
    }

    #[tokio::test]
    async fn a_plugin_that_always_fails_is_given_up() {
        let (verdict, called) = send(Calls::Many, None, &[Act::Trap; 50]).await;
        let outcomes = verdict.unwrap();
        assert_eq!((called.len(), outcomes.len()), (1 + MAX_FAILURES, 50));
        assert!(outcomes[MAX_FAILURES..].iter().all(|outcome| *outcome == Outcome::Held));
        // One answer shows that the plugin is not to blame.
        let mut acts = [Act::Trap; 50];
        acts[5] = Act::Send;
        assert_eq!(send(Calls::Many, None, &acts).await.1.len(), 1 + 50);
    }

    #[tokio::test]
    async fn a_send_ends_when_its_patience_is_used_up() {
        let (verdict, called) = send(Calls::Many, None, &[Act::Spin; 1000]).await;
        let outcomes = verdict.unwrap();
        assert_eq!(called[1..], [[0], [1], [2]]);
        assert_eq!(outcomes[..3], [retry("deadline"), retry("deadline"), retry("deadline")]);
        assert!(outcomes[3..].iter().all(|outcome| *outcome == Outcome::Held));
        assert_eq!(outcomes.len(), 1000);
    }

    #[tokio::test]
    async fn a_stop_holds_the_remaining_signals() {
        for calls in [Calls::Single, Calls::Many] {
            let (verdict, called) = send_until(2, calls, Some("   "), &[Act::Send; 3]).await;
            assert_eq!(verdict, Ok(vec![Outcome::Sent, Outcome::Sent, Outcome::Held]));
            assert_eq!(called, [[0], [1]]);
        }
        assert_eq!(send_until(0, Calls::Many, None, &[Act::Send; 2]).await, (Ok(vec![Outcome::Held; 2]), vec![]));
    }

    #[tokio::test]
    async fn an_outage_covers_the_batch_until_a_signal_is_sent() {
        let (verdict, _) = send(Calls::Single, None, &[Act::Skip, Act::Outage, Act::Send]).await;
        assert!(matches!(verdict, Err(Outage::Misconfigured { .. })));
        for calls in [Calls::Single, Calls::Many] {
            let (verdict, called) = send(calls, Some("   "), &[Act::Send, Act::Outage, Act::Send]).await;
            assert_eq!(verdict, Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Held]));
            assert_eq!(called, [[0], [1]]);
        }
    }

    #[tokio::test]
    async fn an_empty_batch_is_one_call_or_none() {
        assert_eq!(send(Calls::Many, None, &[]).await, (Ok(vec![]), vec![vec![]]));
        assert_eq!(send(Calls::Single, None, &[]).await, (Ok(vec![]), vec![]));
    }
}
