//! The `producer` interface: publishes messages through granted connections.
//!
//! A message that a connection did not confirm must never count as sent. The connections themselves
//! are made by the crate `signalbus-bus`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::batch::UNTRIED;
use super::connection_grant::ConnectionGrant;
use super::own_ids::OwnIds;
use super::wit::signalbus::plugin::types as wit;
use signalbus_core::message::{Message, Publisher};
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_telemetry as telemetry;

/// The connections that a plugin may publish through, by name.
#[derive(Clone, Default)]
pub struct Connections {
    named: Vec<(ConnectionGrant, Arc<dyn Publisher>)>,
    /// Used for any other name.
    any: Option<(ConnectionGrant, Arc<dyn Publisher>)>,
}

impl Connections {
    /// Grants a connection.
    pub fn grant(&mut self, grant: ConnectionGrant, publisher: Arc<dyn Publisher>) {
        self.named.push((grant, publisher));
    }

    /// Grants one publisher under every name, to test a plugin.
    pub fn any(publisher: Arc<dyn Publisher>) -> Self {
        Self { named: Vec::new(), any: Some((ConnectionGrant::default(), publisher)) }
    }

    fn find(&self, name: &str) -> Option<&(ConnectionGrant, Arc<dyn Publisher>)> {
        self.named.iter().find(|(grant, _)| grant.name == name).or(self.any.as_ref())
    }

    /// Returns whether every name is granted.
    pub(super) fn is_open(&self) -> bool {
        self.any.is_some()
    }

    /// Returns whether nothing can be published.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none()
    }

    /// Publishes messages, each through the connection that it names, and returns one outcome per
    /// message, or an outage if nothing may be assumed published. A message outside of its grant is rejected.
    pub(super) async fn publish(&self, messages: Vec<Message>, signal_type: &str, ids: &OwnIds) -> Verdict {
        let mut parts: Vec<Part<'_>> = Vec::new();
        let mut outcomes = vec![Outcome::Held; messages.len()];
        for (position, message) in messages.into_iter().enumerate() {
            let Some((grant, publisher)) = self.find(&message.connection) else {
                telemetry::denied(signal_type, "grants.connections");
                let name = message.connection;
                let reason =
                    format!("connection \"{name}\" is not granted; add it to `signals.{signal_type}.grants.connections`");
                return Err(Outage::Misconfigured { reason });
            };
            if let Err(reason) = grant.check(&message, publisher.as_ref(), ids) {
                let reason = format!("{reason} of connection \"{}\" in `signals.{signal_type}.grants`", message.connection);
                telemetry::denied_because(signal_type, "grants.connections", &reason);
                outcomes[position] = Outcome::Reject { reason };
                continue;
            }
            match parts.iter_mut().find(|(known, ..)| Arc::ptr_eq(known, publisher)) {
                Some((_, positions, messages)) => {
                    positions.push(position);
                    messages.push(message);
                }
                None => parts.push((publisher, vec![position], vec![message])),
            }
        }
        let published = parts.into_iter().map(async |(publisher, positions, messages)| {
            let verdict = publisher.publish(messages).await;
            (positions, verdict)
        });
        merged(outcomes, join_all(published).await)
    }
}

/// The messages for one connection, and their positions in the list.
type Part<'a> = (&'a Arc<dyn Publisher>, Vec<usize>, Vec<Message>);

/// Merges the verdicts of several connections into the outcomes. If only some have an outage, it is unknown what
/// became of their messages, and the outcomes of the others stand.
fn merged(mut outcomes: Vec<Outcome>, mut parts: Vec<(Vec<usize>, Verdict)>) -> Verdict {
    if parts.iter().all(|(_, verdict)| verdict.is_err())
        && let Some((_, outage)) = parts.pop()
    {
        return outage;
    }
    for (positions, verdict) in parts {
        let answers = verdict.unwrap_or_default();
        positions.into_iter().zip(answers).for_each(|(position, answer)| outcomes[position] = answer);
    }
    Ok(outcomes)
}

impl fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.named.iter().map(|(grant, _)| &grant.name)).finish()
    }
}

impl From<wit::Message> for Message {
    fn from(message: wit::Message) -> Self {
        let wit::Message { connection, destination, key, content_type, headers, body, id, options } = message;
        Self { connection, destination, key, content_type, headers, body, id, options }
    }
}

impl From<Outcome> for wit::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Sent => Self::Sent,
            Outcome::Skip => Self::Skip,
            Outcome::Retry { reason, after } => Self::Retry(wit::Retry { reason, after_ms: after.map(millis) }),
            Outcome::Reject { reason } => Self::Reject(reason),
            // If a plugin passes it on, the signal is not charged.
            Outcome::Held => Self::Retry(wit::Retry { reason: UNTRIED.to_owned(), after_ms: None }),
        }
    }
}

impl From<Outage> for wit::Outage {
    fn from(outage: Outage) -> Self {
        match outage {
            Outage::Unavailable { reason, after } => Self::Unavailable(wit::Retry { reason, after_ms: after.map(millis) }),
            Outage::Misconfigured { reason } => Self::Misconfigured(reason),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(reason: &str) -> Verdict {
        Err(Outage::Unavailable { reason: reason.into(), after: None })
    }

    #[test]
    fn outcomes_keep_the_order_of_the_messages() {
        let merged =
            merged(vec![Outcome::Held; 3], vec![(vec![0, 2], Ok(vec![Outcome::Sent, Outcome::Skip])), (vec![1], down("b"))]);
        assert_eq!(merged, Ok(vec![Outcome::Sent, Outcome::Held, Outcome::Skip]));
    }

    #[test]
    fn an_outage_of_every_connection_is_an_outage() {
        assert_eq!(merged(vec![Outcome::Held; 2], vec![(vec![0], down("a")), (vec![1], down("b"))]), down("b"));
        assert_eq!(merged(vec![], vec![]), Ok(vec![]));
    }
}
