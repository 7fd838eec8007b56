//! Many signals in one call.

use crate::outcome::{Error, Meaning};
use crate::{Outcome, Result, Signal};
use std::collections::BTreeSet;

/// What a function that sends many signals returns: one [`Outcome`] per signal, in their order.
///
/// An outage by `?` concerns all of them. Any other error by `?` means *retry* for all of them,
/// whatever its own meaning: one signal's `or_skip` or `or_reject` must not delete its neighbours.
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
/// - In an ordered signal type it stops at the first signal to be retried: what follows is
///   answered with *retry* untried, and the relay charges nothing for it. Where the attribute
///   `order_key` names columns (joined with `,`), only what has the same values there is held.
/// - An outage before anything was decided is the answer for the whole call. Later it stops the
///   loop, and the rest is retried: what was sent stays sent.
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
/// The outage that `send` met, where no signal had been decided before it.
pub fn each(signals: &[Signal], mut send: impl FnMut(&Signal) -> Result) -> BulkResult {
    let mut outcomes = Vec::with_capacity(signals.len());
    let mut held = Held::default();
    for signal in signals {
        if held.holds(signal) {
            outcomes.push(Outcome::retry(EARLIER));
            continue;
        }
        let outcome = match send(signal) {
            Ok(outcome) => outcome,
            Err(error) if error.is_outage() && outcomes.is_empty() => return Err(error),
            Err(error) if error.is_outage() => {
                let rest = signals.len() - outcomes.len();
                outcomes.extend(vec![Outcome::retry(error.reason); rest]);
                break;
            }
            Err(error) => decided(error),
        };
        if matches!(outcome, Outcome::Retry(_)) {
            held.add(signal);
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Why a signal was not tried.
pub(crate) const EARLIER: &str = "an earlier signal must be sent first";

/// The verdict on the signal that met the error.
pub(crate) fn decided(error: Error) -> Outcome {
    let reason = error.reason.clone();
    error.into_outcome().unwrap_or_else(|_| Outcome::retry(reason))
}

/// Which orders may not go on in this call.
#[derive(Default)]
struct Held(BTreeSet<String>);

impl Held {
    fn holds(&self, signal: &Signal) -> bool {
        !self.0.is_empty() && self.0.contains(&order(signal))
    }

    fn add(&mut self, signal: &Signal) {
        if signal.is_ordered() {
            self.0.insert(order(signal));
        }
    }
}

/// The order that the signal belongs to; all of a call belong to one unless there is a key.
pub(crate) fn order(signal: &Signal) -> String {
    let columns = signal.attribute("order_key").unwrap_or_default().split(',');
    let values: Vec<_> = columns.filter_map(|column| signal.value(column)).collect();
    format!("{values:?}")
}

/// The answer to the relay: an error that is no outage retries all, and deletes nothing.
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
