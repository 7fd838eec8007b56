//! Sending many signals in one call.
//!
//! An error of one signal must never delete its neighbours. `export` calls [`answer`]; `message`
//! builds on this module to publish.

use crate::outcome::{Error, Meaning};
use crate::{Outcome, Result, Signal, runs};

/// The result of a function that sends many signals: one [`Outcome`] per signal, in their order.
///
/// An outage returned with `?` applies to all signals. Any other error returned with `?` means *retry*
/// for all, whatever its own meaning: one signal's `or_skip` or `or_reject` must not delete its
/// neighbours.
/// Use [`each`] where errors belong to single signals.
///
/// ```
/// use signalbus_guest::{BulkResult, Outcome, Signal, config, plugin};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     let wanted = config::require("customer")?; // missing: an outage, nobody is charged
///     let outcome = |signal: &Signal| match signal.get::<&str>("customer") {
///         Ok(customer) if customer == wanted => Outcome::Sent,
///         Ok(_) => Outcome::Skip,
///         Err(error) => Outcome::reject(error.to_string()),
///     };
///     Ok(signals.iter().map(outcome).collect())
/// }
///
/// plugin!(bulk send_all);
/// # let row = |customer: Option<&str>| Signal::builder("OrderPlaced").column("customer", customer).build();
/// # let rows = [row(Some("Ann")), row(Some("Bob")), row(None)];
/// # assert!(send_all(&rows).unwrap_err().is_outage());
/// # signalbus_guest::testing::settings([("customer", "Ann")]);
/// # let outcomes = send_all(&rows).unwrap();
/// # assert_eq!(outcomes[..2], [Outcome::Sent, Outcome::Skip]);
/// # assert!(matches!(outcomes[2], Outcome::Reject(_)));
/// ```
pub type BulkResult = Result<Vec<Outcome>>;

/// Sends each signal with `send`, and collects the outcomes.
///
/// An outage before any signal is decided applies to the whole call. A later outage ends the loop: what
/// was decided stays so, and the remaining signals are not tried, which is not charged. In an ordered signal
/// type, what is behind a failure is not tried either.
///
/// ```
/// use signalbus_guest::{BulkResult, Outcome, Signal, each, plugin};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     each(signals, |signal| {
///         let _id: i64 = signal.get("id")?;
///         Ok(Outcome::Sent)
///     })
/// }
///
/// plugin!(bulk send_all);
/// # let signals = [Signal::builder("A").column("id", 1).build()];
/// # assert_eq!(send_all(&signals), Ok(vec![Outcome::Sent]));
/// ```
///
/// # Errors
///
/// Returns the outage that `send` returned, if no signal was decided before.
pub fn each(signals: &[Signal], send: impl FnMut(&Signal) -> Result) -> BulkResult {
    let lengths = runs::of(signals)?;
    let (outcomes, outage) = in_turn(signals, lengths.as_deref(), send, || true);
    whole(outcomes, outage, signals)
}

/// Sends signals one after the other, until all are decided, there is an outage, or it is time to stop; of runs of these
/// lengths, what is behind a failure is left. Returns the outcomes of those that were tried.
pub(crate) fn in_turn(
    signals: &[Signal],
    lengths: Option<&[usize]>,
    mut send: impl FnMut(&Signal) -> Result,
    mut goes_on: impl FnMut() -> bool,
) -> (Vec<Option<Outcome>>, Option<Error>) {
    let mut outcomes = vec![None; signals.len()];
    for run in runs::ranges(lengths, signals.len()) {
        for position in run {
            let sent = runs::alone(|| send(&signals[position]));
            let outcome = match sent {
                Ok(outcome) => outcome,
                Err(error) if error.is_outage() => return (outcomes, Some(error)),
                Err(error) => decided(error),
            };
            let stops = !runs::goes_on(&outcome);
            outcomes[position] = Some(outcome);
            if !goes_on() {
                return (outcomes, None);
            }
            if stops {
                break;
            }
        }
    }
    (outcomes, None)
}

/// Answers for all signals, of which some may not have been tried.
pub(crate) fn whole(outcomes: Vec<Option<Outcome>>, outage: Option<Error>, signals: &[Signal]) -> BulkResult {
    let reason = match outage {
        Some(error) if outcomes.iter().all(Option::is_none) => return Err(error),
        outage => outage.map(|error| error.reason),
    };
    let told = || reason.clone().map(Outcome::retry);
    let left = |signal| untried(signal).or_else(told).unwrap_or_else(|| runs::held(signal));
    Ok(outcomes.into_iter().zip(signals).map(|(outcome, signal)| outcome.unwrap_or_else(|| left(signal))).collect())
}

/// Returns the answer for a signal that was not tried; `None` if the relay knows none.
pub(crate) fn untried(signal: &Signal) -> Option<Outcome> {
    signal.attribute("untried").map(Outcome::retry)
}

/// Converts an error into the outcome of its signal.
pub(crate) fn decided(error: Error) -> Outcome {
    let reason = error.reason.clone();
    error.into_outcome().unwrap_or_else(|_| Outcome::retry(reason))
}

/// Converts a result into the answer to the relay. An error that is not an outage retries all signals,
/// and deletes none.
pub(crate) fn answer(result: BulkResult, signals: usize) -> std::result::Result<Vec<Outcome>, crate::bindings::types::Outage> {
    let error = match result {
        Ok(outcomes) => return Ok(outcomes),
        Err(error) => error,
    };
    let kept = match error.meaning {
        Meaning::Skip | Meaning::Reject => Error::retry(error.reason),
        Meaning::Retry(_) | Meaning::Unavailable(_) | Meaning::Misconfigured => error,
    };
    Ok(vec![kept.into_outcome()?; signals])
}
