//! The `producer` interface: publishes messages through granted connections.
//!
//! A message that a connection did not confirm must never count as sent. The connections themselves
//! are made by the crate `signalbus-bus`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::batch::UNTRIED;
use super::connection_grant::ConnectionGrant;
use super::own_ids::OwnIds;
use super::wit::signalbus::plugin::types as wit;
use signalbus_core::message::{Message, Publisher, RunReceipt};
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
            let publisher = match self.route(&message, signal_type, ids)? {
                Ok(publisher) => publisher,
                Err(refusal) => {
                    outcomes[position] = refusal;
                    continue;
                }
            };
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

    /// Publishes runs of messages in order, as [`publish`](Self::publish) does: behind anything but what was sent, the
    /// rest of a run is held. Where a run changes its connection, the first one must have confirmed what was ahead.
    /// Returns also the outage that has left something unknown, if there was one.
    pub(super) async fn publish_in_order(
        &self,
        runs: Vec<Vec<Message>>,
        signal_type: &str,
        ids: &OwnIds,
    ) -> Result<(Vec<Vec<Outcome>>, Option<Outage>), Outage> {
        let mut outage = None;
        let routed = |run: Vec<Message>| {
            let routed = run.into_iter().map(|message| Ok((self.route(&message, signal_type, ids)?, message)));
            Ok(Run::new(routed.collect::<Result<_, Outage>>()?))
        };
        let mut runs = runs.into_iter().map(routed).collect::<Result<Vec<_>, Outage>>()?;
        loop {
            let mut parts: Vec<RunPart<'_>> = Vec::new();
            for (n, run) in runs.iter_mut().enumerate() {
                let Some((publisher, messages)) = run.next_part() else { continue };
                match parts.iter_mut().find(|(known, ..)| Arc::ptr_eq(known, publisher)) {
                    Some((_, numbers, lists)) => {
                        numbers.push(n);
                        lists.push(messages);
                    }
                    None => parts.push((publisher, vec![n], vec![messages])),
                }
            }
            if parts.is_empty() {
                break;
            }
            let published = parts.into_iter().map(async |(publisher, numbers, lists)| {
                let receipts = publisher.publish_in_order(lists).await;
                (numbers, receipts)
            });
            for (numbers, receipts) in join_all(published).await {
                let receipts = receipts.unwrap_or_else(|found| vec![vec![Err(found)]; numbers.len()]);
                let unknown = numbers.into_iter().zip(receipts).filter_map(|(n, receipts)| runs[n].note(receipts));
                outage = unknown.last().or(outage);
            }
        }
        match outage {
            // Nothing was decided.
            Some(outage) if runs.iter().all(|run| run.outcomes.is_empty()) => Err(outage),
            outage => Ok((runs.into_iter().map(Run::whole).collect(), outage)),
        }
    }

    /// Returns the publisher of a message, or why it is refused; an outage if its connection is not granted.
    fn route(&self, message: &Message, signal_type: &str, ids: &OwnIds) -> Result<Route<'_>, Outage> {
        let name = &message.connection;
        let Some((grant, publisher)) = self.find(name) else {
            telemetry::denied(signal_type, "grants.connections");
            let reason = format!("connection \"{name}\" is not granted; add it to `signals.{signal_type}.grants.connections`");
            return Err(Outage::Misconfigured { reason });
        };
        Ok(grant.check(message, publisher.as_ref(), ids).map(|()| publisher).map_err(|reason| {
            let reason = format!("{reason} of connection \"{name}\" in `signals.{signal_type}.grants`");
            telemetry::denied_because(signal_type, "grants.connections", &reason);
            Outcome::Reject { reason }
        }))
    }
}

/// Where a message goes, or why it is refused.
type Route<'a> = Result<&'a Arc<dyn Publisher>, Outcome>;

/// A run that is being published.
struct Run<'a> {
    /// What has no outcome yet.
    left: VecDeque<(Route<'a>, Message)>,
    outcomes: Vec<Outcome>,
    messages: usize,
    /// Nothing more is published: something was not sent.
    stopped: bool,
}

/// Parts of runs for one connection, and the numbers of these runs.
type RunPart<'a> = (&'a Arc<dyn Publisher>, Vec<usize>, Vec<Vec<Message>>);

impl<'a> Run<'a> {
    fn new(left: VecDeque<(Route<'a>, Message)>) -> Self {
        Self { outcomes: Vec::with_capacity(left.len()), messages: left.len(), left, stopped: false }
    }

    /// Takes the messages up to the next one for another connection, or that is refused.
    fn next_part(&mut self) -> Option<(&'a Arc<dyn Publisher>, Vec<Message>)> {
        if self.stopped {
            return None;
        }
        let publisher = match &self.left.front()?.0 {
            Ok(publisher) => *publisher,
            Err(refusal) => {
                self.outcomes.push(refusal.clone());
                self.left.pop_front();
                self.stopped = true;
                return None;
            }
        };
        let goes_on = |route: &Route<'_>| route.as_ref().is_ok_and(|other| Arc::ptr_eq(other, publisher));
        let end = self.left.iter().position(|(route, _)| !goes_on(route)).unwrap_or(self.left.len());
        Some((publisher, self.left.drain(..end).map(|(_, message)| message).collect()))
    }

    /// Notes what became of a part. Returns the outage for which that is unknown.
    fn note(&mut self, receipts: Vec<RunReceipt>) -> Option<Outage> {
        let mut outage = None;
        for receipt in receipts {
            match receipt {
                Ok(Outcome::Held) => break,
                Ok(outcome) => {
                    let goes_on = matches!(outcome, Outcome::Sent | Outcome::Skip);
                    self.outcomes.push(outcome);
                    if !goes_on {
                        self.stopped = true;
                        break;
                    }
                }
                Err(found) => {
                    outage = Some(found);
                    break;
                }
            }
        }
        // Unless everything that was to be sent was sent, nothing more is.
        self.stopped |= self.outcomes.len() + self.left.len() < self.messages;
        outage
    }

    /// Returns one outcome for each message.
    fn whole(mut self) -> Vec<Outcome> {
        self.outcomes.resize(self.messages, Outcome::Held);
        self.outcomes
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

impl From<Outcome> for wit::RunOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Sent => Self::Sent,
            Outcome::Skip => Self::Skip,
            Outcome::Retry { reason, after } => Self::Retry(wit::Retry { reason, after_ms: after.map(millis) }),
            Outcome::Reject { reason } => Self::Reject(reason),
            Outcome::Held => Self::Held,
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
    use signalbus_core::message::{Publishing, PublishingInOrder};

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

    /// A connection that does with each message what its body says, and notes what it was asked to publish.
    #[derive(Default)]
    struct Obedient(std::sync::Mutex<Vec<String>>);

    impl Publisher for Obedient {
        fn publish(&self, _: Vec<Message>) -> Publishing<'_> {
            unreachable!("the messages are in runs")
        }

        fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
            let answer = |message: Message| {
                let body = String::from_utf8(message.body).unwrap();
                self.0.lock().unwrap().push(format!("{} {body}", message.destination));
                match body.as_str() {
                    "sent" => Ok(Outcome::Sent),
                    "retry" => Ok(Outcome::retry("full")),
                    "held" => Ok(Outcome::Held),
                    _ => Err(Outage::Unavailable { reason: body, after: None }),
                }
            };
            let receipts = runs.into_iter().map(|run| run.into_iter().map(answer).collect()).collect();
            Box::pin(std::future::ready(Ok(receipts)))
        }
    }

    /// Publishes runs of messages, `connection body`; what goes to `c` is outside of its grant.
    async fn published(runs: &[&[&str]]) -> (Result<Vec<Vec<Outcome>>, Outage>, Vec<String>) {
        let bus = Arc::new(Obedient::default());
        let mut connections = Connections::default();
        for name in ["a", "b"] {
            let bus: Arc<dyn Publisher> = bus.clone();
            // Two connections, of which the tests see one list.
            let apart: Arc<dyn Publisher> = Arc::new(Through(bus));
            connections.grant(ConnectionGrant::plain(name), apart);
        }
        connections.grant(ConnectionGrant { destinations: Some(vec![]), ..ConnectionGrant::plain("c") }, bus.clone());
        let message = |text: &&str| {
            let (connection, body) = text.split_once(' ').unwrap();
            let destination = connection.to_owned();
            Message { connection: connection.into(), destination, body: body.into(), ..Message::default() }
        };
        let runs = runs.iter().map(|run| run.iter().map(message).collect()).collect();
        let verdict = connections.publish_in_order(runs, "T", &OwnIds::default()).await;
        let verdict = verdict.map(|(outcomes, _)| outcomes);
        let told = bus.0.lock().unwrap().clone();
        (verdict, told)
    }

    struct Through(Arc<dyn Publisher>);

    impl Publisher for Through {
        fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
            self.0.publish(messages)
        }

        fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
            self.0.publish_in_order(runs)
        }
    }

    #[tokio::test]
    async fn a_run_goes_from_one_connection_to_the_next_when_all_was_sent() {
        let (verdict, told) = published(&[&["a sent", "b sent", "a sent"], &["a sent"]]).await;
        assert_eq!(verdict, Ok(vec![vec![Outcome::Sent; 3], vec![Outcome::Sent]]));
        assert_eq!(told, ["a sent", "a sent", "b sent", "a sent"]);
        for failure in ["retry", "held", "down"] {
            let (verdict, told) = published(&[&[&format!("a {failure}"), "b sent"], &["b sent"]]).await;
            let outcomes = verdict.unwrap();
            assert_eq!((&outcomes[0][1], &outcomes[1][0]), (&Outcome::Held, &Outcome::Sent), "{failure}");
            assert_eq!(outcomes[0][0] == Outcome::Held, failure != "retry");
            assert!(!told.contains(&"b sent".to_owned()) || told.len() == 2, "{told:?}");
        }
    }

    #[tokio::test]
    async fn a_message_outside_of_its_grant_ends_its_run() {
        let (verdict, told) = published(&[&["a sent", "c sent", "a sent"], &["a sent"]]).await;
        let outcomes = verdict.unwrap();
        assert!(matches!(outcomes[0][..], [Outcome::Sent, Outcome::Reject { .. }, Outcome::Held]), "{outcomes:?}");
        assert_eq!((&outcomes[1][..], told.len()), (&[Outcome::Sent][..], 2));
        let (verdict, told) = published(&[&["a sent"], &["nobody sent"]]).await;
        assert!(matches!(verdict, Err(Outage::Misconfigured { .. })) && told.is_empty(), "{verdict:?}");
    }

    #[tokio::test]
    async fn an_outage_in_which_nothing_was_decided_is_one_of_the_call() {
        let (verdict, _) = published(&[&["a down", "a sent"], &["b held"]]).await;
        assert_eq!(verdict, Err(Outage::Unavailable { reason: "down".into(), after: None }));
        let (verdict, _) = published(&[&["a down"], &["b sent"]]).await;
        assert_eq!(verdict, Ok(vec![vec![Outcome::Held], vec![Outcome::Sent]]));
        assert_eq!(published(&[]).await.0, Ok(vec![]));
    }
}
