//! Settlement: turns the outcomes of a batch into what the outbox has to do.
//!
//! The only place that decides which rows may be deleted. Pure: it must never use a clock, a
//! database, randomness of its own, or await. Next: `signalbus-outbox` applies a settlement.

use std::collections::HashSet;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::signal::{Outage, Outcome, Signal, Verdict};

/// The ordering and retry rules of a signal type.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether a signal that is not settled holds back the signals behind it.
    pub ordered: bool,
    /// Whether a dead letter of an ordered type does, too.
    pub holds_dead: bool,
    /// Number of charged attempts after which a signal becomes a dead letter.
    pub max_attempts: u32,
    pub backoff: Backoff,
}

/// A signal that stays in its table and is retried.
#[derive(Clone, Debug, PartialEq)]
pub struct Deferral {
    /// Index in the batch.
    pub index: usize,
    /// Attempts charged so far, including this one.
    pub attempts: u32,
    pub delay: Duration,
    pub reason: String,
}

/// A signal that becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burial {
    /// Index in the batch.
    pub index: usize,
    /// Attempts charged, including this one.
    pub attempts: u32,
    pub reason: String,
}

/// What the outbox has to do with a batch. Signals that are not mentioned stay as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlement {
    /// Indexes in the batch of the rows to delete.
    pub delete: Vec<usize>,
    pub defer: Vec<Deferral>,
    pub bury: Vec<Burial>,
    /// How many of `delete` were skipped: there was nothing to send.
    pub skipped: usize,
    /// Set if the whole call sent nothing because of an outage.
    pub outage: Option<Outage>,
    /// Set to the reason if the plugin fails for every signal: nothing was sent, and the rest was not
    /// tried.
    pub stalled: Option<String>,
}

impl Settlement {
    /// Decides what becomes of every signal of a batch.
    ///
    /// A list of the wrong length acknowledges nothing. For an ordered type, nothing behind a signal that stays is charged
    /// or buried within the same order key; senders do not send it. `chance` returns random numbers in 0..1 for
    /// the jitter.
    pub fn from_verdict(signals: &[Signal], verdict: Verdict, policy: &Policy, mut chance: impl FnMut() -> f64) -> Self {
        let mut settlement = Self::default();
        let outcomes = match verdict {
            Ok(outcomes) if outcomes.len() == signals.len() => outcomes,
            Ok(outcomes) => wrong_length(signals.len(), outcomes.len()),
            Err(outage) => {
                settlement.outage = Some(outage);
                return settlement;
            }
        };
        let mut held = HashSet::new();
        let mut retried = HashSet::new();
        let mut untried = false;
        for (index, (signal, outcome)) in signals.iter().zip(outcomes).enumerate() {
            let (order_key, attempts) = (signal.order_key.as_str(), signal.attempt);
            // What was sent all the same is not sent again: that would not put it in order.
            let done = matches!(outcome, Outcome::Sent | Outcome::Skip);
            if policy.ordered && held.contains(order_key) && !done {
                continue;
            }
            if policy.ordered && matches!(outcome, Outcome::Retry { .. }) {
                retried.insert(order_key);
            }
            let buried = settlement.bury.len();
            match outcome {
                Outcome::Sent => settlement.delete.push(index),
                Outcome::Skip => {
                    settlement.delete.push(index);
                    settlement.skipped += 1;
                }
                Outcome::Held => {
                    // Expected behind a retried signal, even if that signal becomes a dead letter.
                    untried |= !retried.contains(order_key);
                    held.insert(order_key);
                }
                Outcome::Reject { reason } => settlement.bury.push(Burial { index, attempts, reason }),
                Outcome::Retry { reason, .. } if attempts >= policy.max_attempts => {
                    let reason = format!("{reason} (attempt {attempts} of {})", policy.max_attempts);
                    settlement.bury.push(Burial { index, attempts, reason });
                }
                Outcome::Retry { reason, after } => {
                    held.insert(order_key);
                    let delay = after.unwrap_or_else(|| policy.backoff.delay(attempts, chance()));
                    settlement.defer.push(Deferral { index, attempts, delay, reason });
                }
            }
            if policy.holds_dead && settlement.bury.len() > buried {
                retried.insert(order_key);
                held.insert(order_key);
            }
        }
        if untried && settlement.delete.is_empty() {
            settlement.stalled = settlement.defer.last().map(|deferral| deferral.reason.clone());
        }
        settlement
    }

    /// Returns how many signals were sent: those to delete that were not skipped.
    pub fn sent(&self) -> usize {
        self.delete.len() - self.skipped
    }
}

/// Returns the outcomes that stand in for a list of the wrong length: a retry for every signal.
pub fn wrong_length(signals: usize, outcomes: usize) -> Vec<Outcome> {
    let (answers, plural) = (if outcomes == 1 { "outcome" } else { "outcomes" }, if signals == 1 { "" } else { "s" });
    let reason =
        format!("the plugin answered {outcomes} {answers} for {signals} signal{plural}, expected a list with one for each");
    vec![Outcome::retry(reason); signals]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(order_keys: &[&str]) -> Vec<Signal> {
        order_keys
            .iter()
            .enumerate()
            .map(|(n, order_key)| Signal {
                id: format!("Order:{n}"),
                key: n.to_string(),
                order_key: (*order_key).to_string(),
                attempt: 1,
                values: vec![],
            })
            .collect()
    }

    fn policy(ordered: bool) -> Policy {
        Policy { ordered, holds_dead: false, max_attempts: 3, backoff: Backoff::default() }
    }

    fn settle(order_keys: &[&str], ordered: bool, verdict: Verdict) -> Settlement {
        Settlement::from_verdict(&signals(order_keys), verdict, &policy(ordered), || 0.0)
    }

    #[test]
    fn a_dead_letter_may_hold_back_its_key() {
        let reject = || Outcome::Reject { reason: "no".into() };
        let outcomes = vec![reject(), Outcome::Sent, Outcome::Sent];
        let keys = signals(&["a", "a", "b"]);
        let settled = Settlement::from_verdict(&keys, Ok(outcomes), &policy(true), || 0.0);
        assert_eq!(settled.delete, [1, 2]);
        let holds = Policy { holds_dead: true, ..policy(true) };
        let outcomes = vec![reject(), Outcome::Held, Outcome::Sent];
        let settled = Settlement::from_verdict(&keys, Ok(outcomes), &holds, || 0.0);
        assert_eq!((settled.delete, settled.bury.len(), settled.stalled), (vec![2], 1, None));
    }

    #[test]
    fn a_plugin_that_fails_for_every_signal_has_stalled() {
        let trap = || Outcome::retry("trap");
        let stalled = |outcomes: Vec<Outcome>| settle(&["", "", ""], false, Ok(outcomes)).stalled;
        assert_eq!(stalled(vec![trap(), trap(), Outcome::Held]), Some("trap".into()));
        assert_eq!(stalled(vec![trap(), trap(), trap()]), None);
        assert_eq!(stalled(vec![trap(), Outcome::Sent, Outcome::Held]), None);
        // A signal held back behind an earlier one of its order key is not a stall.
        let ordered = vec![trap(), Outcome::Held, Outcome::Held];
        assert_eq!(settle(&["", "", ""], true, Ok(ordered.clone())).stalled, None);
        assert_eq!(settle(&["a", "b", "c"], true, Ok(ordered)).stalled, Some("trap".into()));
        // Nor is one held back behind a signal that becomes a dead letter.
        let mut signals = signals(&["a", "a", "b"]);
        signals[0].attempt = 3;
        let verdict = Ok(vec![trap(), Outcome::Held, trap()]);
        let settlement = Settlement::from_verdict(&signals, verdict, &policy(true), || 0.0);
        assert_eq!((settlement.bury.len(), settlement.defer.len(), settlement.stalled), (1, 1, None));
    }

    #[test]
    fn only_sent_and_skipped_rows_are_deleted() {
        let verdict = Ok(vec![
            Outcome::Sent,
            Outcome::retry("later"),
            Outcome::Skip,
            Outcome::Reject { reason: "never".into() },
            Outcome::Held,
        ]);
        let settlement = settle(&["", "", "", "", ""], false, verdict);
        assert_eq!(settlement.delete, [0, 2]);
        assert_eq!((settlement.sent(), settlement.skipped), (1, 1));
        assert_eq!(settlement.defer[0].index, 1);
        assert_eq!(settlement.defer[0].delay, Duration::from_secs(1));
        assert_eq!(settlement.bury[0].index, 3);
    }

    #[test]
    fn a_list_of_the_wrong_length_acknowledges_nothing() {
        for count in [0, 1, 3] {
            let settlement = settle(&["", ""], false, Ok(vec![Outcome::Sent; count]));
            assert!(settlement.delete.is_empty());
            assert_eq!(settlement.defer.len(), 2);
        }
    }

    #[test]
    fn an_outage_changes_and_charges_nothing() {
        let outage = Outage::Misconfigured { reason: "no url".into() };
        let settlement = settle(&["", ""], false, Err(outage.clone()));
        assert_eq!(settlement, Settlement { outage: Some(outage), ..Settlement::default() });
    }

    #[test]
    fn nothing_is_charged_behind_a_retried_signal() {
        let reject = Outcome::Reject { reason: "no".into() };
        let verdict = Ok(vec![Outcome::Sent, Outcome::retry("later"), Outcome::retry("later"), reject]);
        let settlement = settle(&["", "", "", ""], true, verdict);
        assert_eq!(settlement.delete, [0]);
        assert_eq!((settlement.defer.len(), settlement.defer[0].index, settlement.bury.len()), (1, 1, 0));
    }

    /// A sender that does so is at fault; but the bus has it, and another time it would be out of order again.
    #[test]
    fn what_was_sent_behind_a_failure_is_deleted() {
        let verdict = Ok(vec![Outcome::retry("later"), Outcome::Sent, Outcome::Held, Outcome::Skip]);
        let settlement = settle(&["", "", "", ""], true, verdict);
        assert_eq!((settlement.delete, settlement.defer.len()), (vec![1, 3], 1));
    }

    #[test]
    fn a_retried_signal_holds_back_only_its_own_order_key() {
        let verdict = Ok(vec![Outcome::retry("later"), Outcome::Sent, Outcome::Held, Outcome::Sent]);
        let settlement = settle(&["a", "b", "a", "b"], true, verdict);
        assert_eq!(settlement.delete, [1, 3]);
    }

    #[test]
    fn a_dead_letter_holds_nothing_back() {
        let verdict = Ok(vec![Outcome::Reject { reason: "bad".into() }, Outcome::Sent]);
        let settlement = settle(&["", ""], true, verdict);
        assert_eq!((settlement.delete, settlement.bury.len()), (vec![1], 1));
    }

    #[test]
    fn the_last_attempt_ends_in_a_dead_letter() {
        let mut batch = signals(&[""]);
        batch[0].attempt = 3;
        let settlement = Settlement::from_verdict(&batch, Ok(vec![Outcome::retry("full")]), &policy(false), || 0.0);
        assert!(settlement.defer.is_empty());
        assert_eq!(settlement.bury[0].reason, "full (attempt 3 of 3)");
    }

    #[test]
    fn the_plugins_own_delay_takes_precedence() {
        let after = Some(Duration::from_secs(90));
        let verdict = Ok(vec![Outcome::Retry { reason: "slow down".into(), after }]);
        assert_eq!(settle(&[""], false, verdict).defer[0].delay, Duration::from_secs(90));
    }
}
