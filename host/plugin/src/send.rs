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
mod tests;
