//! Wraps every bus with metrics, and redacts secrets in its messages.
//!
//! No outcome or outage may leave the crate without passing through here. Each bus implements
//! `Bus` in a module of its own.

use tokio::time::Instant;

use super::pace::{Call, Pace};
use super::privileges::Kind;
use super::{Bus, ConnectionConfig, Failure, Receipt, Run, apart, goes_on, publish_heads, unavailable};
use signalbus_core::message::{Effect, Message, Publisher, Publishing, PublishingInOrder, RunReceipt};
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_telemetry as telemetry;

/// A bus with metrics and redaction.
pub(super) struct InstrumentedBus {
    config: ConnectionConfig,
    kind: Kind,
    secrets: Vec<String>,
    bus: Box<dyn Bus>,
    pace: Pace,
    /// Creates a further connection of the same kind.
    open: Opener,
}

/// Whether messages must arrive in the order of their list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// A call has one list, whose messages are independent of one another.
    Any,
    /// A call has several lists, which are independent of one another: runs.
    Strict,
}

type Opener = Box<dyn Fn() -> Result<Box<dyn Bus>, String> + Send + Sync>;

impl InstrumentedBus {
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        let again = config.clone();
        Self::with(config, Box::new(move || again.bus()))
    }

    fn with(config: &ConnectionConfig, open: Opener) -> Result<Self, String> {
        let secrets = config.secrets().into_iter().filter(|secret| secret.len() >= 4).collect();
        let kind = Kind::of_scheme(config.url.scheme());
        Ok(Self { config: config.clone(), kind, secrets, bus: open()?, pace: Pace::new(config.timeout), open })
    }

    async fn publish_measured(&self, messages: Vec<Message>) -> Verdict {
        let receipts = self.measured(&[&messages], Order::Any).await?;
        Ok(receipts.into_iter().flatten().map(|receipt| receipt.unwrap_or(Outcome::Held)).collect())
    }

    async fn publish_runs_measured(&self, runs: Vec<Vec<Message>>) -> Result<Vec<Vec<RunReceipt>>, Outage> {
        let runs: Vec<Run<'_>> = runs.iter().map(Vec::as_slice).collect();
        let receipts = self.measured(&runs, Order::Strict).await?;
        let told = |receipt: Receipt| receipt.map_err(|failure| self.describe(unavailable(failure.reason())));
        Ok(receipts.into_iter().map(|run| run.into_iter().map(told).collect()).collect())
    }

    async fn measured(&self, runs: &[Run<'_>], order: Order) -> Result<Vec<Vec<Receipt>>, Outage> {
        let begun = Instant::now();
        let mut receipts = self.send(runs, order).await;
        if let Err(Outage::Unavailable { reason, .. }) = &mut receipts
            && let Some(cause) = self.config.explain().await
        {
            reason.push_str("; ");
            reason.push_str(&cause);
        }
        let outcomes = receipts.as_ref().map(|receipts| receipts.iter().flatten().filter_map(|receipt| receipt.as_ref().ok()));
        telemetry::published(&self.config.name, outcomes, begun.elapsed());
        receipts
    }

    async fn send(&self, runs: &[Run<'_>], order: Order) -> Result<Vec<Vec<Receipt>>, Outage> {
        let mut receipts = self.receipts(runs, order).await.map_err(|outage| self.describe(outage))?;
        // Unless the bus has decided on anything, it has an outage.
        let mut all = receipts.iter().flatten();
        if !all.clone().any(|receipt| receipt.as_ref().is_ok_and(|outcome| *outcome != Outcome::Held))
            && let Some(failure) = all.find_map(|receipt| receipt.as_ref().err())
        {
            return Err(self.describe(unavailable(failure.reason())));
        }
        receipts
            .iter_mut()
            .flatten()
            .filter_map(|receipt| receipt.as_mut().ok())
            .for_each(|outcome| self.redact_outcome(outcome));
        Ok(receipts)
    }

    /// Publishes the messages in parts, each as large as the bus can confirm in time. What there is no time for, and what
    /// follows a part that was not confirmed, goes into another call.
    async fn receipts(&self, runs: &[Run<'_>], order: Order) -> Result<Vec<Vec<Receipt>>, Outage> {
        let begun = Instant::now();
        let (half, deadline) = (begun + self.config.timeout / 2, begun + self.config.timeout);
        let (call, mut most) = (self.pace.call(), usize::MAX);
        let mut receipts: Vec<Vec<Receipt>> = runs.iter().map(|run| Vec::with_capacity(run.len())).collect();
        loop {
            let left = runs.iter().zip(&receipts).map(|(run, told)| match order == Order::Any || goes_on(told) {
                true => &run[told.len()..],
                false => &[],
            });
            let parts = call.parts(&left.collect::<Vec<_>>(), most);
            if parts.iter().all(|part| part.is_empty()) {
                break;
            }
            let told = match self.publish_parts(&call, &parts, order, deadline).await {
                Ok(told) => told,
                Err(outage) if receipts.iter().all(Vec::is_empty) => return Err(outage),
                Err(_) => break,
            };
            // Runs that were cut go on with as much as was possible, and then with more again.
            let cut = parts.iter().zip(&told).filter(|(part, told)| told.len() < part.len() && goes_on(told));
            let cut = cut.map(|(_, told)| told.len());
            most = cut.min().map_or(most.saturating_mul(2), |least| least.max(1));
            receipts.iter_mut().zip(told).for_each(|(receipts, told)| receipts.extend(told));
            if Instant::now() >= half || receipts.iter().flatten().any(Result::is_err) {
                break;
            }
        }
        receipts.iter_mut().zip(runs).for_each(|(receipts, run)| receipts.resize(run.len(), Ok(Outcome::Held)));
        Ok(receipts)
    }

    /// Publishes messages together; those that a broken connection left unconfirmed, on connections of their own: of a run
    /// only the first one, and nothing of what follows it.
    async fn publish_parts(
        &self,
        call: &Call<'_>,
        parts: &[Run<'_>],
        order: Order,
        deadline: Instant,
    ) -> Result<Vec<Vec<Receipt>>, Outage> {
        let begun = Instant::now();
        let mut receipts = match order {
            Order::Any => vec![self.bus.publish(parts[0], deadline).await?],
            Order::Strict if parts.iter().all(|part| part.len() <= 1) => publish_heads(&*self.bus, parts, deadline).await?,
            Order::Strict => self.bus.publish_in_order(parts, deadline).await?,
        };
        call.learn(parts, &receipts, begun.elapsed());
        if is_broken(&receipts) && Instant::now() < deadline {
            match order {
                Order::Any => apart::publish(&self.open, parts[0], &mut receipts[0], deadline).await,
                Order::Strict => apart::publish_heads(&self.open, parts, &mut receipts, deadline).await,
            }
        }
        let mut all = receipts.iter().flatten();
        if let Some(failure) = all.clone().find_map(|receipt| receipt.as_ref().err()) {
            let unconfirmed = all.clone().filter(|receipt| receipt.is_err()).count();
            let others = all.any(Result::is_ok);
            telemetry::unconfirmed(&self.config.name, unconfirmed, others, &self.redact(failure.reason()));
        }
        Ok(receipts)
    }

    /// Adds the connection's name to an outage, and redacts secrets.
    fn describe(&self, outage: Outage) -> Outage {
        let words = |reason: &str| format!("connection \"{}\": {}", self.config.name, self.redact(reason));
        match outage {
            Outage::Unavailable { reason, after } => Outage::Unavailable { reason: words(&reason), after },
            Outage::Misconfigured { reason } => Outage::Misconfigured { reason: words(&reason) },
        }
    }

    fn redact_outcome(&self, outcome: &mut Outcome) {
        if let Outcome::Retry { reason, .. } | Outcome::Reject { reason } = outcome {
            *reason = self.redact(reason);
        }
    }

    fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
    }
}

/// Returns whether a connection broke, and nothing else left messages unconfirmed.
fn is_broken(receipts: &[Vec<Receipt>]) -> bool {
    let mut failures = receipts.iter().flatten().filter_map(|receipt| receipt.as_ref().err()).peekable();
    failures.peek().is_some() && failures.all(|failure| matches!(failure, Failure::Broken(_)))
}

impl Publisher for InstrumentedBus {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        Box::pin(self.publish_measured(messages))
    }

    fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
        Box::pin(self.publish_runs_measured(runs))
    }

    fn administers(&self, destination: &str) -> bool {
        self.kind.administers(destination)
    }

    fn effect_of_header(&self, name: &str) -> Effect {
        self.kind.effect_of_header(name)
    }

    fn effect_of_option(&self, name: &str, value: &str) -> Effect {
        self.kind.effect_of_option(name, value)
    }
}

#[cfg(test)]
#[cfg(feature = "amqp")]
mod tests;
