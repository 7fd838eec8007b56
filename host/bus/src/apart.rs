//! Finds the messages that break connections, so that they cost nobody but themselves.
//!
//! What a broken connection left unconfirmed is published again on connections that nobody else uses, by
//! halves. `instrumented` calls it; a bus should refuse what it cannot carry before it comes to this.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Bus, Failure, Receipt, Run, reject, unavailable};
use signalbus_core::backoff::Backoff;
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// How many connections of its own a message has to break until it is at fault.
const BREAKS: u32 = 3;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(500);
/// How many connections in a row have to break until smaller parts go first.
const IN_A_ROW: u32 = 3;

/// The messages of a call that have no outcome yet.
struct Suspects<'a> {
    messages: &'a [Message],
    receipts: &'a mut [Receipt],
    /// The positions of messages to be published together, and how often they broke a connection.
    parts: VecDeque<(Vec<usize>, u32)>,
    /// Whether the bus has confirmed a message meanwhile.
    confirmed: bool,
}

/// Publishes the messages that a broken connection left unconfirmed, and rejects those that break every
/// connection. `open` creates a connection. What there is no time for, or no bus, stays unconfirmed.
pub(super) async fn publish(
    open: impl Fn() -> Result<Box<dyn Bus>, String>,
    messages: &[Message],
    receipts: &mut [Receipt],
    deadline: Instant,
) {
    let left: Vec<usize> = (0..messages.len()).filter(|position| receipts[*position].is_err()).collect();
    let before = receipts.to_vec();
    let mut suspects = Suspects { messages, receipts, parts: [(left, 0)].into(), confirmed: false };
    let ended = timeout_at(deadline, suspects.publish_all(open, deadline)).await;
    if !suspects.confirmed && !matches!(ended, Ok(Ok(()))) {
        // The bus may be at fault.
        receipts.clone_from_slice(&before);
    }
}

/// The same for runs that a broken connection has cut: it publishes the first message of each that is unconfirmed, and
/// leaves out the receipts of what follows it, which is to be published again.
pub(super) async fn publish_heads(
    open: impl Fn() -> Result<Box<dyn Bus>, String>,
    runs: &[Run<'_>],
    receipts: &mut [Vec<Receipt>],
    deadline: Instant,
) {
    let heads = receipts.iter().enumerate().filter_map(|(run, told)| Some((run, told.iter().position(Result::is_err)?)));
    let heads: Vec<(usize, usize)> = heads.collect();
    let messages: Vec<Message> = heads.iter().map(|(run, head)| runs[*run][*head].clone()).collect();
    let mut told: Vec<Receipt> = heads.iter().map(|(run, head)| receipts[*run][*head].clone()).collect();
    publish(open, &messages, &mut told, deadline).await;
    for ((run, head), receipt) in heads.into_iter().zip(told) {
        receipts[run].truncate(head);
        receipts[run].push(receipt);
    }
}

impl Suspects<'_> {
    /// # Errors
    /// The bus is not available.
    async fn publish_all(&mut self, open: impl Fn() -> Result<Box<dyn Bus>, String>, deadline: Instant) -> Result<(), Outage> {
        let backoff = Backoff::new(FIRST, 2.0, LONGEST, 0.2).map_err(unavailable)?;
        let mut bus = open().map_err(unavailable)?;
        let mut breaks = 0;
        // What broke a connection goes to the end: others are confirmed in between, which shows that the bus is
        // well, and keeps the backoff short. If nothing is, smaller parts go first.
        while let Some((part, broke)) = self.parts.pop_front() {
            if self.publish_part(&*bus, &part, deadline).await? {
                breaks = 0;
            }
            let left: Vec<usize> = part.iter().copied().filter(|position| self.receipts[*position].is_err()).collect();
            if left.is_empty() {
                continue;
            }
            breaks += 1;
            bus = open().map_err(unavailable)?;
            let broke = if part.len() == 1 { broke + 1 } else { 0 };
            match left.as_slice() {
                [alone] if broke >= BREAKS => self.blame(*alone),
                many => self.parts.extend(many.chunks(many.len().div_ceil(2)).map(|half| (half.to_vec(), broke))),
            }
            if breaks >= IN_A_ROW {
                self.parts.make_contiguous().sort_by_key(|(part, _)| part.len());
            }
            sleep(backoff.delay(breaks, fastrand::f64())).await;
        }
        Ok(())
    }

    /// Publishes some of the messages; returns whether the bus confirmed any.
    async fn publish_part(&mut self, bus: &dyn Bus, part: &[usize], deadline: Instant) -> Result<bool, Outage> {
        let messages: Vec<Message> = part.iter().map(|position| self.messages[*position].clone()).collect();
        let receipts = bus.publish(&messages, deadline).await?;
        let confirmed = receipts.contains(&Ok(Outcome::Sent));
        self.confirmed |= confirmed;
        part.iter().zip(receipts).for_each(|(position, receipt)| self.receipts[*position] = receipt);
        let failure = part.iter().find_map(|position| self.receipts[*position].as_ref().err());
        match failure {
            Some(Failure::Outage(reason)) => Err(unavailable(reason.as_str())),
            _ => Ok(confirmed),
        }
    }

    /// Decides on a message that broke connections of its own. Unless another one was confirmed in the
    /// meantime, the bus could still be at fault.
    fn blame(&mut self, position: usize) {
        let Err(failure) = &self.receipts[position] else { return };
        let size = self.messages[position].body.len();
        let reason = format!(
            "the message broke {BREAKS} connections of its own: the bus cannot carry it ({}; the body has {size} bytes); \
             correct its destination, key, headers or size",
            failure.reason()
        );
        self.receipts[position] = Ok(if self.confirmed { reject(reason) } else { Outcome::retry(reason) });
    }
}
