//! Which acknowledgement is whose: the client library numbers packets, and does not tell the caller.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::{Receipt, reject};
use signalbus_core::signal::Outcome;

/// The messages of a session that are not acknowledged yet.
pub(super) struct Acks {
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Handed to the client, in that order, and not numbered yet.
    queued: VecDeque<Waiting>,
    numbered: HashMap<u16, Waiting>,
    lost: Option<String>,
}

struct Waiting {
    sender: oneshot::Sender<Receipt>,
    _room: OwnedSemaphorePermit,
}

impl Acks {
    /// Most messages that are with the client at once.
    pub(super) const MOST: usize = 4096;

    /// Why the session is over.
    pub(super) fn lost(&self) -> Option<String> {
        self.state().lost.clone()
    }

    /// Hands a message to the client, once there is room.
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

    /// Everybody who waits is told by the end of their channel.
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

/// Keeps a session going until it is lost. A session that comes after it would number anew.
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
