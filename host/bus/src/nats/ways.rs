//! Atomic batches, which a stream stores as a whole or not at all: order in a stream that has other publishers, too.
//!
//! Servers have them from version 2.12 on, for streams with `allow_atomic`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{Receipt, Run, outage};
use super::Session;

/// Maximum number of messages of a batch.
const MOST: usize = 1000;

/// Which subjects lead to streams that take batches, as far as that was asked.
#[derive(Default)]
pub(super) struct Batches(Mutex<HashMap<String, bool>>);

impl Batches {
    fn known(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the first of these messages begin a batch.
    pub(super) fn take(&self, run: Run<'_>) -> bool {
        run.len() > 1 && self.known().get(&run[0].destination) == Some(&true)
    }

    /// Asks whether the stream of a subject takes batches.
    pub(super) async fn learn(&self, jetstream: &Context, subject: &str) {
        const PATIENCE: Duration = Duration::from_secs(2);
        /// More subjects than an application has.
        const MOST: usize = 1000;
        if self.known().contains_key(subject) || self.known().len() >= MOST {
            return;
        }
        let asked = async {
            let stream = jetstream.stream_by_subject(subject).await.ok()?;
            let told: serde_json::Value = jetstream.request(format!("STREAM.INFO.{stream}"), &()).await.ok()?;
            told["config"]["allow_atomic"].as_bool()
        };
        // (A user who may not ask gets no answer.)
        let takes = timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default();
        self.known().insert(subject.to_owned(), takes);
    }
}

impl Session {
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
