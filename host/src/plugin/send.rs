//! The rules of sending: what is called, in which order, and when to stop. Knows no WebAssembly.

use std::collections::HashSet;
use std::time::Duration;

use crate::signal::{Outage, Outcome, Signal, Verdict};

/// A call that got no answer; its instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// The functions that the guest was in, the innermost first; empty where that is not known.
    pub(super) backtrace: String,
}

/// The calls that a batch can be sent with.
pub(super) trait Calls: Send {
    /// Sends the whole batch in one call, in a fresh instance; `None` if a call takes one signal.
    fn all(&mut self) -> impl Future<Output = Option<Result<Verdict, Failure>>> + Send;

    /// Sends one signal of the batch. After a failure the next one gets a fresh instance.
    fn one(&mut self, index: usize) -> impl Future<Output = Result<Result<Outcome, Outage>, Failure>> + Send;

    /// Time since the first call.
    fn elapsed(&self) -> Duration;
}

/// How a batch is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether a signal that stays holds back those behind it, within its order key.
    pub(super) ordered: bool,
    /// After this time no further call is started.
    pub(super) patience: Duration,
}

/// After so many calls that got no answer, with none before that did, it is not the signals' fault.
const HOPELESS: usize = 10;

impl Rules {
    /// Sends a batch. One that failed as a whole is sent again signal by signal, so that one
    /// poisonous signal does not wear out its neighbours.
    pub(super) async fn send(self, signals: &[Signal], calls: &mut impl Calls) -> Verdict {
        match calls.all().await {
            None => {}
            Some(Ok(verdict)) => return verdict,
            Some(Err(failure)) if signals.len() == 1 => return Ok(vec![Outcome::retry(failure.reason)]),
            Some(Err(_)) => {}
        }
        self.one_by_one(signals, calls).await
    }

    async fn one_by_one(self, signals: &[Signal], calls: &mut impl Calls) -> Verdict {
        let mut outcomes = Vec::with_capacity(signals.len());
        let mut stopped = HashSet::new();
        let (mut answered, mut failed) = (false, 0);
        for (index, signal) in signals.iter().enumerate() {
            if stopped.contains(signal.order_key.as_str()) || calls.elapsed() >= self.patience || failed >= HOPELESS {
                outcomes.push(Outcome::Held);
                continue;
            }
            let answer = calls.one(index).await;
            answered |= answer.is_ok();
            failed = if answered { 0 } else { failed + 1 };
            let outcome = match answer {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) if outcomes.contains(&Outcome::Sent) => break,
                Ok(Err(outage)) => return Err(outage),
                Err(failure) => Outcome::retry(failure.reason),
            };
            if self.ordered && matches!(outcome, Outcome::Retry { .. }) {
                stopped.insert(signal.order_key.as_str());
            }
            outcomes.push(outcome);
        }
        outcomes.resize(signals.len(), Outcome::Held);
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// What each signal does when it is sent alone; a bulk call fails if one of them does.
    #[derive(Clone, Copy)]
    enum Act {
        Send,
        Skip,
        Retry,
        Trap,
        Spin,
        Outage,
    }

    fn failure(reason: &str) -> Failure {
        Failure { reason: reason.into(), backtrace: String::new() }
    }

    struct Script {
        bulk: bool,
        acts: Vec<Act>,
        called: Vec<usize>,
        spent: Duration,
    }

    impl Calls for Script {
        async fn all(&mut self) -> Option<Result<Verdict, Failure>> {
            if !self.bulk {
                return None;
            }
            for act in &self.acts {
                match act {
                    Act::Spin => self.spent += TIMEOUT,
                    Act::Trap => {}
                    _ => continue,
                }
                return Some(Err(failure("trap")));
            }
            Some(Ok(Ok(vec![Outcome::Sent])))
        }

        async fn one(&mut self, index: usize) -> Result<Result<Outcome, Outage>, Failure> {
            self.called.push(index);
            match self.acts[index] {
                Act::Send => Ok(Ok(Outcome::Sent)),
                Act::Skip => Ok(Ok(Outcome::Skip)),
                Act::Retry => Ok(Ok(Outcome::retry("full"))),
                Act::Trap => Err(failure("trap")),
                Act::Spin => {
                    self.spent += TIMEOUT;
                    Err(failure("deadline"))
                }
                Act::Outage => Ok(Err(Outage::Misconfigured { reason: "no url".into() })),
            }
        }

        fn elapsed(&self) -> Duration {
            self.spent
        }
    }

    async fn send(bulk: bool, order_keys: Option<&str>, acts: &[Act]) -> (Verdict, Vec<usize>) {
        let keys = order_keys.map(|keys| keys.chars().collect::<Vec<_>>());
        let signals: Vec<Signal> = (0..acts.len())
            .map(|n| Signal {
                key: n.to_string(),
                order_key: keys.as_ref().map(|keys| keys[n].to_string()).unwrap_or_default(),
                attempt: 1,
                values: vec![],
            })
            .collect();
        let mut script = Script { bulk, acts: acts.to_vec(), called: vec![], spent: Duration::ZERO };
        let rules = Rules { ordered: keys.is_some(), patience: 4 * TIMEOUT };
        (rules.send(&signals, &mut script).await, script.called)
    }

    fn retry(reason: &str) -> Outcome {
        Outcome::retry(reason)
    }

    #[tokio::test]
    async fn a_bulk_answer_is_passed_on_whatever_its_length() {
        let (verdict, called) = send(true, None, &[Act::Send, Act::Send]).await;
        assert_eq!((verdict, called), (Ok(vec![Outcome::Sent]), vec![]));
    }

    #[tokio::test]
    async fn a_poisonous_signal_is_charged_alone() {
        let (verdict, _) = send(true, None, &[Act::Send, Act::Trap, Act::Skip]).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent, retry("trap"), Outcome::Skip]));
        let (verdict, called) = send(true, None, &[Act::Trap]).await;
        assert_eq!((verdict, called), (Ok(vec![retry("trap")]), vec![]));
    }

    #[tokio::test]
    async fn a_failing_order_key_holds_back_only_itself() {
        for failing in [Act::Trap, Act::Retry] {
            let acts = [failing, Act::Send, Act::Send, Act::Send];
            let (verdict, called) = send(false, Some("abab"), &acts).await;
            let outcomes = verdict.unwrap();
            assert_eq!(outcomes[1..], [Outcome::Sent, Outcome::Held, Outcome::Sent]);
            assert_eq!(called, [0, 1, 3]);
        }
    }

    #[tokio::test]
    async fn without_order_nothing_is_held_back() {
        let (verdict, _) = send(false, None, &[Act::Retry, Act::Send]).await;
        assert_eq!(verdict, Ok(vec![retry("full"), Outcome::Sent]));
    }

    #[tokio::test]
    async fn what_always_fails_is_given_up() {
        let (verdict, called) = send(true, None, &[Act::Trap; 50]).await;
        let outcomes = verdict.unwrap();
        assert_eq!((called.len(), outcomes.len()), (HOPELESS, 50));
        assert!(outcomes[HOPELESS..].iter().all(|outcome| *outcome == Outcome::Held));
        // One answer shows that it is not the plugin.
        let mut acts = [Act::Trap; 50];
        acts[5] = Act::Send;
        assert_eq!(send(true, None, &acts).await.1.len(), 50);
    }

    #[tokio::test]
    async fn endless_loops_use_up_patience_not_hours() {
        let (verdict, called) = send(true, None, &[Act::Spin; 1000]).await;
        let outcomes = verdict.unwrap();
        assert_eq!(called, [0, 1, 2]);
        assert_eq!(outcomes[..3], [retry("deadline"), retry("deadline"), retry("deadline")]);
        assert!(outcomes[3..].iter().all(|outcome| *outcome == Outcome::Held));
        assert_eq!(outcomes.len(), 1000);
    }

    #[tokio::test]
    async fn an_outage_speaks_for_all_until_one_was_sent() {
        let (verdict, _) = send(false, None, &[Act::Skip, Act::Outage, Act::Send]).await;
        assert!(matches!(verdict, Err(Outage::Misconfigured { .. })));
        let (verdict, called) = send(false, None, &[Act::Send, Act::Outage, Act::Send]).await;
        assert_eq!(verdict, Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Held]));
        assert_eq!(called, [0, 1]);
    }

    #[tokio::test]
    async fn an_empty_batch_calls_nothing() {
        assert_eq!(send(false, None, &[]).await, (Ok(vec![]), vec![]));
    }
}
