//! One request per signal: many at once, in an ordered signal type one of each order key at a time.
//!
//! A run goes on as soon as its own request is answered, whatever others wait for. `exchange` sends the requests.

use super::{Answer, Error, Request, Requests, Response};
use crate::bulk::decided;
use crate::outcome::Meaning;
use crate::{BulkResult, Outcome, Result, Signal, host, runs};
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Sends one request per signal, made by `request`, at most `at_most` of them concurrently; `outcome` decides on the answer.
/// In an ordered signal type, one request of each order key is in flight at a time, none behind a failure, and no key waits
/// for another.
///
/// What cannot be answered in the time of the call is not tried, which is not charged. After a second, a call with runs
/// begins requests only while it waits for earlier ones, so that a stop does not wait for it.
///
/// ```
/// use signalbus_guest::{BulkResult, Outcome, Signal, Verdict, http, plugin};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     let request = |signal: &Signal| Ok(http::Request::post("https://shop.example/orders").json(signal)?);
///     http::send_each(signals, 50, request, |answer| match answer.or_unavailable()?.status {
///         200..=299 => Ok(Outcome::Sent),
///         status => Ok(Outcome::retry(format!("shop answered {status}"))),
///     })
/// }
///
/// plugin!(bulk send_all);
/// # assert_eq!(send_all(&[Signal::builder("A").build()]), Ok(vec![Outcome::Sent]));
/// ```
///
/// # Errors
///
/// Returns the outage in which every request has ended. If only some have, their signals are retried.
pub fn send_each(
    signals: &[Signal],
    at_most: usize,
    request: impl FnMut(&Signal) -> Result<Request>,
    outcome: impl FnMut(std::result::Result<Response, Error>) -> Result,
) -> BulkResult {
    let lengths = runs::of(signals)?;
    let ranges = runs::ranges(lengths.as_deref(), signals.len());
    let mut each = Each {
        signals,
        request,
        outcome,
        ready: ranges.iter().filter(|range| !range.is_empty()).map(|range| range.start).collect(),
        ends: ranges.iter().flat_map(|range| vec![range.end; range.len()]).collect(),
        outcomes: vec![None; signals.len()],
        outage: None,
        is_decided: false,
        in_runs: lengths.is_some(),
        early: HashSet::new(),
        begun: runs::now(),
        limit: signals.first().and_then(Signal::call_timeout),
    };
    host::exchange(&mut each, at_most.max(1));
    match each.outage {
        Some(outage) if !each.is_decided => Err(outage),
        _ => Ok(each
            .outcomes
            .into_iter()
            .zip(signals)
            .map(|(outcome, signal)| outcome.unwrap_or_else(|| runs::held(signal)))
            .collect()),
    }
}

struct Each<'a, R, O> {
    signals: &'a [Signal],
    request: R,
    outcome: O,
    /// Positions of signals that may be sent: nothing is ahead of them.
    ready: VecDeque<usize>,
    /// Where the run of each signal ends.
    ends: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    outage: Option<crate::Error>,
    /// Whether a request has ended otherwise than in an outage.
    is_decided: bool,
    in_runs: bool,
    /// Requests in flight that began in the call's share of time.
    early: HashSet<usize>,
    begun: Option<Instant>,
    /// The time limit of the call.
    limit: Option<Duration>,
}

impl<R, O> Each<'_, R, O> {
    fn decide(&mut self, position: usize, outcome: Outcome) {
        if runs::goes_on(&outcome) && position + 1 < self.ends[position] {
            self.ready.push_back(position + 1);
        }
        self.outcomes[position] = Some(outcome);
    }

    fn note(&mut self, position: usize, outage: crate::Error) {
        self.outcomes[position] = Some(Outcome::retry(outage.reason()));
        // An operator learns more from what is wrong than from what is away.
        if self.outage.is_none() || outage.meaning == Meaning::Misconfigured {
            self.outage = Some(outage);
        }
    }

    /// Notes that a request is to begin. Returns whether it is left to another call instead: it may end too late for this
    /// one to be answered, or this one has had its share, and nothing keeps it waiting.
    fn is_late(&mut self, position: usize, request: &Request) -> bool {
        let elapsed = self.begun.map(|begun| begun.elapsed()).unwrap_or_default();
        if self.in_runs && elapsed < runs::SHARE {
            self.early.insert(position);
        }
        let has_share = !self.in_runs || !self.early.is_empty();
        let has_time = self.limit.is_none_or(|limit| elapsed + request.timeout <= limit.mul_f64(0.9));
        position > 0 && !(has_share && has_time)
    }
}

impl<R, O> Requests for Each<'_, R, O>
where
    R: FnMut(&Signal) -> Result<Request>,
    O: FnMut(Answer) -> Result,
{
    fn next(&mut self) -> Option<(usize, Request)> {
        while let Some(position) = self.ready.pop_front() {
            match (self.request)(&self.signals[position]) {
                Ok(request) if self.is_late(position, &request) => {}
                Ok(request) => return Some((position, request)),
                Err(error) if error.is_outage() => self.note(position, error),
                Err(error) => self.decide(position, decided(error)),
            }
        }
        None
    }

    fn answered(&mut self, position: usize, answer: Answer) {
        self.early.remove(&position);
        match (self.outcome)(answer) {
            Err(error) if error.is_outage() => self.note(position, error),
            result => {
                self.is_decided = true;
                self.decide(position, result.unwrap_or_else(decided));
            }
        }
    }
}
