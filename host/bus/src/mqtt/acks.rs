//! Matches acknowledgements with messages: the client library numbers packets, but does not return the
//! number to its caller.
//!
//! Messages must be queued in the order in which the client gets them. `mqtt` waits for the receipts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::{Receipt, reject};
use signalbus_core::signal::Outcome;

/// The unacknowledged messages of a session.
pub(super) struct Acks {
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Messages that the client has not numbered yet, in the order in which it got them.
    queued: VecDeque<Waiting>,
    numbered: HashMap<u16, Waiting>,
    lost: Option<String>,
}

struct Waiting {
    sender: oneshot::Sender<Receipt>,
    _room: OwnedSemaphorePermit,
}

impl Acks {
    /// Maximum number of messages that the client holds at once.
    pub(super) const MOST: usize = 4096;

    /// Returns why the session has ended; `None` while it goes on.
    pub(super) fn lost(&self) -> Option<String> {
        self.state().lost.clone()
    }

    /// Waits for room, and passes a message to the client; returns where its receipt will arrive.
    ///
    /// # Errors
    /// The session has ended, or the client does not take the message.
    pub(super) async fn enqueue(&self, client: &AsyncClient, publish: Publish) -> Result<oneshot::Receiver<Receipt>, String> {
        let room = self.room.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let (sender, waiting) = oneshot::channel();
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let mut state = self.state();
        if let Some(reason) = &state.lost {
            return Err(reason.clone());
        }
        let properties = publish.properties.unwrap_or_default();
        client
            .try_publish_with_properties(topic, publish.qos, publish.retain, publish.payload, properties)
            .map_err(|error| error.to_string())?;
        state.queued.push_back(Waiting { sender, _room: room });
        Ok(waiting)
    }

    fn apply(&self, event: Event) {
        let mut state = self.state();
        match event {
            Event::Outgoing(Outgoing::Publish(number)) => {
                if let Some(waiting) = state.queued.pop_front() {
                    state.numbered.insert(number, waiting);
                }
            }
            Event::Incoming(Incoming::PubAck(ack)) => {
                if let Some(waiting) = state.numbered.remove(&ack.pkid) {
                    let said = ack.properties.and_then(|properties| properties.reason_string);
                    let _ = waiting.sender.send(Ok(classify(ack.reason, said)));
                }
            }
            _ => {}
        }
    }

    /// Ends the session. All waiting callers notice, because their channels are closed.
    fn lose(&self, reason: String) {
        let mut state = self.state();
        *state = State { lost: Some(reason), ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Acks {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(Self::MOST)), state: Mutex::default() }
    }
}

/// Drives a session until it is lost. It does not reconnect, because a new session numbers its packets
/// from the start.
pub(super) async fn run(mut events: EventLoop, acks: Arc<Acks>) {
    loop {
        match events.poll().await {
            Ok(event) => acks.apply(event),
            Err(error) => return acks.lose(format!("the connection to the MQTT server was lost: {error}")),
        }
    }
}

fn classify(reason: PubAckReason, said: Option<String>) -> Outcome {
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Outcome::Sent,
        PubAckReason::TopicNameInvalid => reject(format!("the MQTT server refuses the topic{said}")),
        PubAckReason::PayloadFormatInvalid => reject(format!("the MQTT server refuses the body: it has the wrong format{said}")),
        PubAckReason::NotAuthorized => {
            Outcome::retry(format!("the MQTT server does not allow this user to publish to the topic{said}"))
        }
        PubAckReason::QuotaExceeded => {
            Outcome::retry(format!("the MQTT server has no room for the message: quota exceeded{said}"))
        }
        other => Outcome::retry(format!("the MQTT server refuses the message: {other:?}{said}")),
    }
}
