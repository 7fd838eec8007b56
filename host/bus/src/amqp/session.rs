//! A connection to RabbitMQ and its channels, on which messages are published and confirmed.
//!
//! A channel must never be used again before everything on it was confirmed. Next: `outcome`, what an answer means.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use super::message::AmqpPublish;
use super::outcome::{classify, failure, fault, is_of_channel, note_returned, outcome, unroutable};
use crate::{Failure, Receipt, outage};
use signalbus_core::signal::Outcome;

pub(super) struct Session {
    pub(super) connection: lapin::Connection,
    /// How many channels were opened.
    pub(super) opened: AtomicU16,
    /// Channels that are not in use.
    pub(super) idle: Mutex<Vec<Channel>>,
    /// Exchanges known to exist.
    pub(super) exchanges: Mutex<HashSet<String>>,
}

impl Session {
    pub(super) fn is_usable(&self) -> bool {
        self.connection.status().connected()
    }

    /// Returns whether another connection should take its place: the client cannot reuse the number of a
    /// channel that the server has closed.
    pub(super) fn is_used_up(&self) -> bool {
        self.opened.load(Ordering::Relaxed) >= self.connection.configuration().channel_max() / 2
    }

    /// Maximum size of a frame in bytes.
    pub(super) fn frame_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    async fn open_channel(&self) -> lapin::Result<Channel> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.connection.create_channel().await
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(channel) if channel.status().connected() => Ok(channel),
            _ => {
                let channel = self.open_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                Ok(channel)
            }
        }
    }

    /// Returns a channel for reuse. Everything published on it must have been confirmed.
    fn give_back(&self, channel: Channel) {
        if channel.status().connected() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        }
    }

    /// Checks that an exchange exists before anything is published to it, and returns the outcome if it
    /// does not. RabbitMQ answers a message for a missing exchange by closing the channel, which leaves
    /// the messages before it unconfirmed.
    pub(super) async fn missing(&self, exchange: &str, deadline: Instant) -> Result<Option<Outcome>, Failure> {
        if exchange.is_empty() || self.exchanges().contains(exchange) {
            return Ok(None);
        }
        let asked = async {
            let channel = self.open_channel().await?;
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let declared = channel.exchange_declare(exchange.into(), ExchangeKind::Direct, passive, FieldTable::default()).await;
            if declared.is_ok() {
                channel.close(200, "".into()).await?;
            }
            declared
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(())) => {
                self.exchanges().insert(exchange.to_owned());
                Ok(None)
            }
            Ok(Err(error)) => fault(&error).map(|fault| Some(outcome(fault))).ok_or_else(|| failure(&error)),
            Err(_) => Err(outage("RabbitMQ did not answer in time")),
        }
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all messages at once; returns those that the server did not process.
    pub(super) async fn publish_all<'p, 'm>(
        &self,
        prepared: &'p [(usize, AmqpPublish<'m>)],
        receipts: &mut [Receipt],
        deadline: Instant,
    ) -> Vec<&'p (usize, AmqpPublish<'m>)> {
        if prepared.is_empty() {
            return Vec::new();
        }
        let channel = match self.in_time(self.channel(), deadline).await {
            Ok(channel) => channel,
            Err(failure) => {
                prepared.iter().for_each(|(position, _)| receipts[*position] = Err(failure.clone()));
                return Vec::new();
            }
        };
        let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(prepared.len());
        for (_, publish) in prepared {
            match self.in_time(publish.send(&channel), deadline).await {
                Ok(confirm) => confirms.push(confirm),
                Err(_) => break,
            }
        }
        let mut unprocessed: Vec<_> = prepared[confirms.len()..].iter().collect();
        let mut returned = Vec::new();
        for (pending, confirm) in prepared.iter().zip(confirms) {
            receipts[pending.0] = match timeout_at(deadline, confirm).await {
                Ok(Ok(confirmation)) => Ok(classify(confirmation, &mut returned)),
                Ok(Err(error)) if is_of_channel(&error) && self.is_usable() => {
                    unprocessed.push(pending);
                    continue;
                }
                Ok(Err(error)) => Err(failure(&error)),
                Err(_) => Err(outage("RabbitMQ did not confirm in time")),
            };
        }
        let complete = unprocessed.is_empty() && prepared.iter().all(|(position, _)| receipts[*position].is_ok());
        unprocessed.extend(note_returned(prepared, &returned, complete, receipts));
        if complete {
            self.give_back(channel);
        }
        unprocessed.sort_unstable_by_key(|(position, _)| *position);
        unprocessed
    }

    /// Publishes one message on a channel of its own: if the channel is closed, the message is at fault.
    pub(super) async fn publish_one(&self, publish: &AmqpPublish<'_>, deadline: Instant) -> Receipt {
        let channel = self.in_time(self.channel(), deadline).await?;
        let published = async { publish.send(&channel).await?.await };
        match timeout_at(deadline, published).await {
            Ok(Ok(confirmation)) => {
                self.give_back(channel);
                let mut returned = Vec::new();
                let outcome = classify(confirmation, &mut returned);
                Ok(returned.first().map_or(outcome, unroutable))
            }
            Ok(Err(error)) => {
                self.exchanges().remove(publish.exchange.as_str());
                fault(&error).map(outcome).ok_or_else(|| failure(&error))
            }
            Err(_) => Err(outage("RabbitMQ did not confirm in time")),
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = lapin::Result<T>>, deadline: Instant) -> Result<T, Failure> {
        match timeout_at(deadline, call).await {
            Ok(answer) => answer.map_err(|error| failure(&error)),
            Err(_) => Err(outage("RabbitMQ did not answer in time")),
        }
    }
}
