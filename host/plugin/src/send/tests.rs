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
    let (verdict, called) = send(Calls::Many, Some("abaab"), &[Act::Send, Act::Forget, Act::Send, Act::Send, Act::Send]).await;
    let lost = retry("the plugin answered 1 outcome for 2 signals, expected a list with one for each");
    assert_eq!((verdict, called), (Ok(vec![lost.clone(), lost, Outcome::Held, Outcome::Held, Outcome::Held]), vec![vec![0, 1]]));
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
