//! The ways to publish a run in its order, of which a stream allows some.
//!
//! A condition on the last message (`Nats-Expected-Last-Msg-Id`) must never be sent to a stream with replicas: they check
//! it when they store the message, and servers from version 2.14 on give the whole stream up where it is not met.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::PublishAckFuture;
use tokio::time::{Instant, timeout_at};

use super::super::{Receipt, Run, outage};
use super::Session;

/// Maximum number of messages of a batch.
const MOST: usize = 1000;

/// How the messages of a run are kept in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Each is stored only if the one before it is the last of the stream: as long as nobody else publishes there.
    Chain,
    /// As a batch, which the stream stores as a whole or not at all (`allow_atomic`, from version 2.12 on).
    Batch,
    /// Each is published when the one before it is acknowledged.
    OneByOne,
}

/// The ways of subjects: the best one, the one beside other publishers, and when that was learned.
#[derive(Default)]
pub(super) struct Ways(Mutex<HashMap<String, (Way, Way, Instant)>>);

impl Ways {
    /// More subjects than an application has.
    const MOST: usize = 1000;
    /// For so long, a stream has the replicas that it had.
    const FRESH: Duration = Duration::from_secs(10);

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Way, Way, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else publishes in the stream of a subject.
    pub(super) fn share(&self, subject: &str) {
        if let Some((way, shared, _)) = self.known().get_mut(subject) {
            *way = *shared;
        }
    }
}

impl Session {
    /// Returns the way for a run: that of its streams, if they have the same.
    pub(super) async fn way(&self, run: Run<'_>, deadline: Instant) -> Way {
        let mut subjects: Vec<&str> = run.iter().map(|message| message.destination.as_str()).collect();
        subjects.dedup();
        let (several, mut way) = (subjects.len() > 1, Way::Chain);
        for subject in subjects.into_iter().filter(|_| run.len() > 1) {
            let known = self.ways.known().get(subject).filter(|(.., at)| at.elapsed() < Ways::FRESH).map(|(way, ..)| *way);
            way = match known {
                Some(way) => way,
                None => self.learn(subject, deadline).await,
            };
            if several && way != Way::Chain {
                return Way::OneByOne;
            }
        }
        way
    }

    /// Asks what the stream of a subject is like.
    async fn learn(&self, subject: &str, deadline: Instant) -> Way {
        const PATIENCE: Duration = Duration::from_secs(2);
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let mut state = self.state.clone();
        let asked = async {
            let stream = self.jetstream.stream_by_subject(subject).await.ok()?;
            let told: serde_json::Value = self.jetstream.request(format!("STREAM.INFO.{stream}"), &()).await.ok()?;
            let config = &told["config"];
            Some((config["num_replicas"].as_u64()? == 1, config["allow_atomic"].as_bool().unwrap_or_default()))
        };
        let told = tokio::select! {
            told = timeout_at(deadline, asked) => told.ok().flatten(),
            // A user who may not ask gets no answer.
            _ = state.wait_for(|state| state.denied.iter().any(|subject| subject.starts_with("$JS.API."))) => None,
        };
        let (alone, atomic) = told.unwrap_or_else(|| (self.jetstream.client().server_info().cluster.is_none(), false));
        let shared = if atomic { Way::Batch } else { Way::OneByOne };
        let way = if alone { Way::Chain } else { shared };
        let mut known = self.ways.known();
        if known.len() >= Ways::MOST {
            known.clear();
        }
        known.insert(subject.to_owned(), (way, shared, Instant::now()));
        way
    }

    /// Publishes the first messages of a run as a batch: those for one subject that can be published. Returns how many they
    /// are, and the acknowledgement of all.
    pub(super) async fn publish_batch(&self, run: Run<'_>, deadline: Instant) -> Result<(usize, PublishAckFuture), Receipt> {
        let (mut parts, subject) = (Vec::with_capacity(run.len().min(MOST)), &run[0].destination);
        for message in run.iter().take(MOST).take_while(|message| message.destination == *subject) {
            match self.checked(message) {
                Ok(headers) => parts.push((message, headers)),
                Err(outcome) if parts.is_empty() => return Err(Ok(outcome)),
                Err(_) => break,
            }
        }
        let (count, id) = (parts.len(), format!("{:032x}", fastrand::u128(..)));
        for (number, (message, mut headers)) in (1..).zip(parts) {
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", number.to_string());
            if number == count {
                headers.insert("Nats-Batch-Commit", "1");
                return Ok((count, self.publish_with(message, headers, deadline).await?));
            }
            let client = self.jetstream.client();
            let published = client.publish_with_headers(subject.clone(), headers, message.body.clone().into());
            match timeout_at(deadline, published).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Err(outage(format!("NATS: {error}")))),
                Err(_) => return Err(Err(outage("NATS accepts no more messages"))),
            }
        }
        Err(Err(outage("NATS: an empty batch")))
    }
}
