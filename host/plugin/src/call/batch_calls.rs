//! The calls of one send, and the instance that they share as long as it answers.
//!
//! A failure of several signals together is reported only if none of them fails alone. Next: `send`, which says which
//! signals go into which call.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::Store;

use super::CallContext;
use crate::guest::State;
use crate::load::Entry;
use crate::runs::{self, Answer};
use crate::send::{Calls, Failure, GuestCalls};
use crate::wit::exports::signalbus::plugin::{bulk_sender, ordered_sender, sender};
use crate::wit::signalbus::plugin::types as wit;
use signalbus_core::signal::{Outcome, Signal, Verdict};

/// The calls of one send. They reuse an instance as long as it answers.
pub(super) struct BatchCalls<'a> {
    pub(super) context: CallContext<'a>,
    pub(super) batch: &'a [Signal],
    pub(super) signals: &'a [wit::Signal<'a>],
    pub(super) alive: Option<LiveInstance>,
    /// A bus had an outage in the midst of runs: what is left would only meet it again.
    pub(super) met_outage: bool,
    /// A failure of several signals together, until one of them fails alone.
    pub(super) unattributed: Option<(Failure, Vec<usize>)>,
    pub(super) started: Instant,
    pub(super) stop: &'a CancellationToken,
    /// No call starts after this time.
    pub(super) patience: Duration,
}

/// An instance that may be entered again.
pub(super) type LiveInstance = (Store<State>, ExportedSender);

/// The sender that a plugin exports, in an instance.
pub(super) enum ExportedSender {
    Runs(ordered_sender::Guest),
    Bulk(bulk_sender::Guest),
    Single(sender::Guest),
}

impl ExportedSender {
    pub(super) async fn send(
        &self,
        store: &mut Store<State>,
        signal_type: wit::SignalType<'_>,
        signals: &[wit::Signal<'_>],
        runs: &[usize],
    ) -> wasmtime::Result<Result<Answer, wit::Outage>> {
        let plain = |outcomes: Vec<wit::Outcome>| Answer::plain(outcomes.into_iter().map(Outcome::from).collect(), signals.len());
        Ok(match self {
            Self::Runs(guest) => {
                let answer = guest.call_send_signalbus_runs(store, signal_type, &runs::split(signals, runs)).await?;
                answer.map(|lists| {
                    let list = |list: Vec<wit::RunOutcome>| list.into_iter().map(Outcome::from).collect();
                    Answer::read(lists.into_iter().map(list).collect(), runs)
                })
            }
            Self::Bulk(guest) => guest.call_send_signalbus_messages(store, signal_type, signals).await?.map(plain),
            Self::Single(guest) => {
                let answer = guest.call_send_signalbus_message(store, signal_type, signals[0].clone()).await?;
                answer.map(|outcome| plain(vec![outcome]))
            }
        })
    }
}

impl GuestCalls for BatchCalls<'_> {
    fn calls(&self) -> Calls {
        match self.context.entry {
            Entry::Runs(_) => Calls::Runs,
            Entry::Bulk(_) => Calls::Many,
            Entry::Single(_) => Calls::Single,
        }
    }

    async fn send(&mut self, positions: &[usize]) -> Result<Verdict, Failure> {
        let signals = self.select(positions);
        let runs = self.runs(positions);
        let alive = self.alive.take();
        let entered_before = alive.is_some();
        let mut answer = self.context.call(alive, &signals, &runs).await;
        if let Err(failure) = &answer
            && entered_before
            && !failure.timed_out
            && positions.len() == 1
        {
            // State that earlier signals left in the instance may be the cause.
            self.context.report(failure, 1, "call failed, retrying in a fresh instance");
            if self.is_stopped() || self.elapsed() >= self.patience {
                return Ok(Ok(vec![Outcome::Held]));
            }
            answer = self.context.call(None, &signals, &runs).await;
        }
        match answer {
            Ok((alive, answer)) => {
                self.met_outage |= alive.0.data().met_outage();
                self.alive = Some(alive);
                Ok(answer)
            }
            Err(failure) => {
                if let &[position] = positions {
                    self.unattributed.take_if(|(_, suspects)| suspects.contains(&position));
                    self.context.report_crash(&failure, &signals).await;
                } else {
                    self.context.report(&failure, positions.len(), "batch failed, sending its signals one by one");
                    self.report_unattributed().await;
                    self.unattributed = Some((failure.clone(), positions.to_vec()));
                }
                Err(failure)
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_stopped(&self) -> bool {
        self.met_outage || self.stop.is_cancelled()
    }
}

impl<'a> BatchCalls<'a> {
    fn select(&self, positions: &[usize]) -> Vec<wit::Signal<'a>> {
        positions.iter().map(|&position| self.signals[position].clone()).collect()
    }

    /// Returns the lengths of the runs of these signals. Where there is no order, each is a run of its own.
    fn runs(&self, positions: &[usize]) -> Vec<usize> {
        match (&self.context.entry, self.context.ordered) {
            (Entry::Runs(_), true) => runs::lengths(positions.iter().map(|&position| self.batch[position].order_key.as_str())),
            (Entry::Runs(_), false) => vec![1; positions.len()],
            _ => Vec::new(),
        }
    }

    /// Reports the crash of a call whose signals did not fail alone, or were not tried alone.
    pub(super) async fn report_unattributed(&mut self) {
        if let Some((failure, suspects)) = self.unattributed.take() {
            self.context.report_crash(&failure, &self.select(&suspects)).await;
        }
    }
}
