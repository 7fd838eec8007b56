//! The port to a bus: what each module implements, and the words that they have in common.
//!
//! A receipt must never say more than the bus has confirmed. Next: `instrumented`, through which every call goes.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::ConnectionConfig;
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// The result of publishing one message: its outcome, or why the bus has not decided on it.
pub(super) type Receipt = Result<Outcome, Failure>;

/// Why a bus has not decided on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection broke, which the bus or one of the messages has caused.
    Broken(String),
    /// The bus takes no messages, or did not answer in time.
    Outage(String),
}

impl Failure {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Broken(reason) | Self::Outage(reason) => reason,
        }
    }
}

/// An outage that the bus has reported, or its silence.
pub(super) fn outage(reason: impl Into<String>) -> Failure {
    Failure::Outage(reason.into())
}

/// A connection that broke.
pub(super) fn broken(reason: impl Into<String>) -> Failure {
    Failure::Broken(reason.into())
}

/// The future that [`Bus::publish`] returns.
pub(super) type Receiving<'a> = Pin<Box<dyn Future<Output = Result<Vec<Receipt>, Outage>> + Send + 'a>>;

/// Messages that must arrive in their order.
pub(super) type Run<'a> = &'a [Message];

/// The future that [`Bus::publish_in_order`] returns.
pub(super) type ReceivingRuns<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vec<Receipt>>, Outage>> + Send + 'a>>;

/// A connection to one kind of bus. It connects when it is first used, and reconnects.
///
/// Each has at least one of the two functions, of which the other one can be made.
pub(super) trait Bus: Send + Sync {
    /// Publishes the messages in their order, waits for confirmations until `deadline`, and returns one
    /// receipt per message.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        Box::pin(async move {
            let runs: Vec<Run<'_>> = messages.chunks(1).collect();
            let mut receipts = self.publish_in_order(&runs, deadline).await?.into_iter();
            // A receipt that is missing must not become that of another message.
            let receipt =
                |_: &Message| receipts.next().and_then(|mut run| run.pop()).unwrap_or_else(|| Err(outage("no receipt")));
            Ok(messages.iter().map(receipt).collect())
        })
    }

    /// Publishes runs, which are independent of one another, as far as that can be done at once: returns a receipt for each
    /// of the first messages of a run. What it leaves out comes next, if these were sent. Of a run whose receipts end with a
    /// failure, nothing that follows may be published again before that.
    ///
    /// # Errors
    /// There is no connection: nothing was published.
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(publish_heads(self, runs, deadline))
    }
}

/// Publishes the first message of each run: all that can be done at once with messages that the bus may refuse, if it would
/// take those that follow.
pub(super) async fn publish_heads(
    bus: &(impl Bus + ?Sized),
    runs: &[Run<'_>],
    deadline: Instant,
) -> Result<Vec<Vec<Receipt>>, Outage> {
    let messages: Vec<Message> = runs.iter().filter_map(|run| run.first().cloned()).collect();
    let mut receipts = bus.publish(&messages, deadline).await?.into_iter();
    Ok(runs.iter().map(|run| receipts.by_ref().take(run.len().min(1)).collect()).collect())
}

/// Returns whether the messages of a run have all been sent so far: the next one may follow.
pub(super) fn goes_on(receipts: &[Receipt]) -> bool {
    receipts.last().is_none_or(|receipt| *receipt == Ok(Outcome::Sent))
}

/// Corrects the receipts of a run that was published as a whole: what the bus has taken behind a failure does not count.
pub(super) fn hold_behind_failure(receipts: &mut [Receipt]) {
    let failed = receipts.iter().position(|receipt| *receipt != Ok(Outcome::Sent));
    let behind = receipts.iter_mut().skip(failed.map_or(usize::MAX, |failed| failed + 1));
    behind.filter(|receipt| receipt.is_ok()).for_each(|receipt| *receipt = Ok(Outcome::Held));
}

/// A connection that was idle for this long is checked before use: it may have been closed unnoticed.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// An outage that may pass without an operator.
pub(super) fn unavailable(reason: impl Into<String>) -> Outage {
    Outage::Unavailable { reason: reason.into(), after: None }
}

/// The outcome of a message that this kind of bus cannot carry.
pub(super) fn reject(reason: impl Into<String>) -> Outcome {
    Outcome::Reject { reason: reason.into() }
}

/// Refuses a part of a message that is longer than the bus takes.
pub(super) fn at_most(limit: usize, bus: &str, part: &str, text: &str) -> Result<(), Outcome> {
    match text.len() {
        length if length > limit => {
            Err(reject(format!("{part} has {length} bytes, but {bus} takes at most {limit}: shorten it")))
        }
        _ => Ok(()),
    }
}

/// Parses an option of a message.
pub(super) fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Outcome> {
    value.parse().map_err(|_| reject(format!("option \"{name}\" cannot be {value:?}")))
}

/// Refuses `options`, for a bus that is configured by its URL alone.
pub(super) fn refuse_options(bus: &str, config: &ConnectionConfig) -> Result<(), String> {
    match config.options.is_empty() {
        true => Ok(()),
        false => Err(format!("{bus} takes no `options`; configure it in the URL")),
    }
}
