//! Kafka: a message counts as sent once all in-sync replicas have it.
//!
//! Options must never weaken this (see `settings`). Producers are dropped in `drop_in_thread`; `explain` asks the servers
//! why they do not confirm; `shared_connection` connects; `instrumented` measures and redacts.

mod drop_in_thread;
mod events;
mod explain;
mod message;
mod msk;
mod outcome;
mod settings;
mod token;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{DeliveryFuture, FutureProducer, Producer as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::shared_connection::SharedConnection;
use super::{Bus, ConnectionConfig, Receipt, ReceivingRuns, Run, hold_behind_failure, outage};
use drop_in_thread::DropInThread;
pub(super) use drop_in_thread::end;
use events::{ClientEvents, ClientState};
use message::{Record, record};
use outcome::{classify, is_of_request, refusal};
use signalbus_core::message::Message;
use signalbus_core::signal::Outage;
use token::Tokens;

/// A connection to Kafka: an idempotent producer that all calls share.
pub(super) struct Kafka {
    settings: ClientConfig,
    tokens: Option<Tokens>,
    /// Shown in messages.
    address: String,
    connection: SharedConnection<Session>,
}

struct Session {
    producer: Producer,
    /// Publishes runs. It ends when a request is refused, and discards what it has queued: made again when needed.
    ordered: Mutex<Option<Arc<Producer>>>,
    /// Sends each message in a request of its own. Made when a message is refused: the server refuses a request as a
    /// whole.
    single: OnceLock<Result<Producer, KafkaError>>,
    settings: ClientConfig,
    events: ClientEvents,
    state: watch::Receiver<ClientState>,
    /// When the servers were last asked why they do not confirm.
    explained: Mutex<Option<Instant>>,
}

type Producer = DropInThread<FutureProducer<ClientEvents>>;

impl Kafka {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        config.refuse_unknown(&["mechanism", "region"])?;
        let address = config.servers(9092).join(",");
        let names_login = config.password().is_some() || config.query("mechanism").is_some();
        if config.user().is_none() && names_login && !Tokens::is_msk(config) {
            return Err("a password and `?mechanism=` need a user".into());
        }
        let settings = settings::settings(config, &address)?;
        settings::validate(&settings)?;
        let tokens = Tokens::new(config)?;
        Ok(Self { settings, tokens, address, connection: SharedConnection::default() })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let (sender, state) = watch::channel(ClientState::default());
        let events = ClientEvents { state: sender, tokens: self.tokens.clone(), runtime: Handle::current() };
        let (settings, single) = (self.settings.clone(), OnceLock::new());
        let (ordered, explained) = (Mutex::default(), Mutex::default());
        match producer(&settings, &events) {
            Ok(producer) => Ok(Session { producer, ordered, single, settings, events, state, explained }),
            Err(error) => Err(Outage::Misconfigured { reason: format!("Kafka client: {error}") }),
        }
    }

    /// Publishes runs, or messages that are independent of one another: runs of one each.
    async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect(), deadline).await?;
        let mut state = session.state.clone();
        // Some time is left to find out why.
        let confirmed = deadline - deadline.saturating_duration_since(Instant::now()) / 16;
        let sent = tokio::select! {
            sent = session.publish_runs(runs, confirmed) => Ok(sent),
            refused = state.wait_for(|state| state.refused.is_some()) => Err(refused.map(|state| state.refused.clone())),
        };
        match sent {
            Ok(receipts) => {
                // The library reconnects by itself.
                if !session.is_usable() {
                    self.connection.end_call(&session, &receipts.concat(), false).await;
                }
                if let Some(topic) = late(runs, &receipts) {
                    session.explain(topic, deadline).await;
                }
                let with_fault =
                    |receipt: Receipt| receipt.map_err(|failure| outage(self.with_fault(&session, failure.reason())));
                Ok(receipts.into_iter().map(|run| run.into_iter().map(with_fault).collect()).collect())
            }
            Err(refused) => {
                self.connection.lose(&session).await;
                let said = refused.ok().flatten().unwrap_or_default();
                let reason = format!("Kafka at {} refuses the login: correct it in the URL: {said}", self.address);
                Err(Outage::Misconfigured { reason })
            }
        }
    }

    /// Adds the last connection error to a reason.
    fn with_fault(&self, session: &Session, reason: &str) -> String {
        /// The library repeats the same error after half of this time.
        const RECENT: Duration = Duration::from_secs(60);
        let ClientState { fault, throttled, .. } = session.state.borrow().clone();
        let fault = fault.filter(|(_, at)| at.elapsed() < RECENT).map(|(fault, _)| format!(" ({fault})"));
        let throttled = throttled.filter(|(_, at)| at.elapsed() < RECENT).map(|(delay, _)| {
            format!(" (a quota is exceeded: the server delays requests of this client by {} ms)", delay.as_millis())
        });
        format!("Kafka at {}: {reason}{}{}", self.address, fault.unwrap_or_default(), throttled.unwrap_or_default())
    }
}

impl Bus for Kafka {
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send(runs, deadline))
    }
}

impl Session {
    /// Returns `false` after a fatal error.
    fn is_usable(&self) -> bool {
        let single = self.single.get().and_then(|single| single.as_ref().ok());
        ![Some(&self.producer), single].into_iter().flatten().any(is_over)
    }

    /// Finds out, within the time that is left, why messages of a topic are not confirmed; one call at a time, and now and
    /// then, since it takes a client of its own.
    async fn explain(&self, topic: &str, deadline: Instant) {
        const PAUSE: Duration = Duration::from_secs(5);
        {
            let mut explained = self.explained.lock().unwrap_or_else(PoisonError::into_inner);
            if explained.is_some_and(|at| at.elapsed() < PAUSE) {
                return;
            }
            *explained = Some(Instant::now());
        }
        let (settings, events, topic) = (self.settings.clone(), self.events.clone(), topic.to_owned());
        let (patience, runtime) = (deadline.saturating_duration_since(Instant::now()), Handle::current());
        let told = tokio::task::spawn_blocking(move || explain::replicas(&settings, events, &topic, patience / 3, &runtime));
        if let Ok(Ok(Some(told))) = timeout_at(deadline, told).await {
            self.events.state.send_modify(|state| state.fault = Some((told, Instant::now())));
        }
    }

    async fn publish_runs(&self, runs: &[Run<'_>], deadline: Instant) -> Vec<Vec<Receipt>> {
        if runs.iter().any(|run| run.len() > 1) {
            return self.publish_in_order(runs, deadline).await;
        }
        let messages: Vec<&Message> = runs.iter().copied().flatten().collect();
        let mut receipts = self.publish(&messages, deadline).await.into_iter();
        runs.iter().map(|run| receipts.by_ref().take(run.len()).collect()).collect()
    }

    /// Publishes runs. Where a request is refused, it is unknown for which of its messages: a run ends before them.
    async fn publish_in_order(&self, runs: &[Run<'_>], deadline: Instant) -> Vec<Vec<Receipt>> {
        let producer = match self.ordered() {
            Ok(producer) => producer,
            Err(error) => return runs.iter().map(|run| vec![Err(outage(error.to_string())); run.len()]).collect(),
        };
        let mut pending = Vec::with_capacity(runs.len());
        for run in runs {
            let mut waiting = Vec::with_capacity(run.len());
            for message in *run {
                waiting.push(match record(message) {
                    Ok(record) => enqueue(&producer, record, deadline).await,
                    Err(outcome) => Err(Ok(outcome)),
                });
                // Nothing may follow what was not published.
                if waiting.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            pending.push(waiting);
        }
        let mut receipts = Vec::with_capacity(runs.len());
        for (run, waiting) in runs.iter().zip(pending) {
            receipts.push(delivered_in_order(&producer, run, waiting, deadline).await);
        }
        // What is not confirmed would be sent behind its repetition.
        if is_over(&producer) || receipts.iter().flatten().any(Result::is_err) {
            let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
            ordered.take_if(|current| Arc::ptr_eq(current, &producer));
        }
        receipts
    }

    /// Returns the producer that leaves no gap.
    fn ordered(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = ordered.as_ref().filter(|producer| !is_over(producer)) {
            return Ok(producer.clone());
        }
        // (After the time limit of a message, what follows it would be sent.)
        let mut settings = self.settings.clone();
        settings.set("enable.gapless.guarantee", "true").set("message.timeout.ms", "0");
        // A run is enqueued at once: without a pause, its first messages would be sent in requests of few, and the library
        // would ask for more without waiting.
        if settings.get("queue.buffering.max.ms") == Some("0") {
            settings.set("queue.buffering.max.ms", "0.5");
        }
        let producer = Arc::new(producer(&settings, &self.events)?);
        *ordered = Some(producer.clone());
        Ok(producer)
    }

    async fn publish(&self, messages: &[&Message], deadline: Instant) -> Vec<Receipt> {
        let all: Vec<usize> = (0..messages.len()).collect();
        let mut receipts = vec![Err(outage("it was not published")); messages.len()];
        let refused = deliver(&self.producer, messages, &all, deadline, &mut receipts).await;
        if refused.is_empty() {
            return receipts;
        }
        let single = self.single.get_or_init(|| producer(self.settings.clone().set("batch.num.messages", "1"), &self.events));
        match single {
            Ok(single) => drop(deliver(single, messages, &refused, deadline, &mut receipts).await),
            Err(error) => refused.iter().for_each(|position| receipts[*position] = Err(outage(error.to_string()))),
        }
        receipts
    }
}

/// Publishes the messages at these positions, and sets their receipts. Returns the positions of those that were refused,
/// or whose request was.
async fn deliver(
    producer: &Producer,
    messages: &[&Message],
    positions: &[usize],
    deadline: Instant,
    receipts: &mut [Receipt],
) -> Vec<usize> {
    let mut pending = Vec::with_capacity(positions.len());
    for &position in positions {
        match record(messages[position]) {
            Ok(record) => pending.push((position, enqueue(producer, record, deadline).await)),
            Err(outcome) => receipts[position] = Ok(outcome),
        }
    }
    let mut refused = Vec::new();
    for (position, pending) in pending {
        let delivered = match pending {
            Ok(pending) => delivered(pending, deadline).await,
            Err(receipt) => Err(receipt),
        };
        receipts[position] = delivered.map_or_else(
            |receipt| receipt,
            |delivery| {
                if delivery.as_ref().is_err_and(|(error, _)| is_of_request(error)) {
                    refused.push(position);
                }
                classify(delivery, &messages[position].destination)
            },
        );
    }
    refused
}

/// Waits for the receipts of a run.
async fn delivered_in_order(
    producer: &Producer,
    run: Run<'_>,
    waiting: Vec<Result<DeliveryFuture, Receipt>>,
    deadline: Instant,
) -> Vec<Receipt> {
    let mut receipts = Vec::with_capacity(waiting.len());
    for (message, waiting) in run.iter().zip(waiting) {
        let delivered = match waiting {
            Ok(waiting) => delivered(waiting, deadline).await,
            Err(receipt) => Err(receipt),
        };
        receipts.push(match delivered {
            Ok(Err((error, _))) if is_of_request(&error) || is_over(producer) => break,
            Ok(delivery) => classify(delivery, &message.destination),
            Err(receipt) => receipt,
        });
    }
    hold_behind_failure(&mut receipts);
    receipts
}

/// Returns the topic of the first message that was not confirmed.
fn late<'a>(runs: &[Run<'a>], receipts: &[Vec<Receipt>]) -> Option<&'a str> {
    let mut all = runs.iter().copied().zip(receipts).flat_map(|(run, receipts)| run.iter().zip(receipts));
    all.find(|(_, receipt)| receipt.is_err()).map(|(message, _)| message.destination.as_str())
}

/// Returns whether a fatal error has ended a producer: an idempotent one that could break its guarantee stops.
fn is_over(producer: &Producer) -> bool {
    producer.get().is_none_or(|producer| producer.client().fatal_error().is_some())
}

async fn enqueue(producer: &Producer, mut record: Record<'_>, deadline: Instant) -> Result<DeliveryFuture, Receipt> {
    const PAUSE: Duration = Duration::from_millis(20);
    let Some(producer) = producer.get() else { return Err(Err(outage("the producer has ended"))) };
    loop {
        match producer.send_result(record) {
            Ok(pending) => return Ok(pending),
            Err((KafkaError::MessageProduction(Code::QueueFull), again)) if Instant::now() < deadline => {
                record = again;
                sleep(PAUSE).await;
            }
            Err((error, record)) => return Err(refusal(&error, record.topic)),
        }
    }
}

fn producer(settings: &ClientConfig, events: &ClientEvents) -> Result<Producer, KafkaError> {
    settings.create_with_context(events.clone()).map(DropInThread::new)
}

async fn delivered(pending: DeliveryFuture, deadline: Instant) -> Result<OwnedDeliveryResult, Receipt> {
    match timeout_at(deadline, pending).await {
        Ok(Ok(delivery)) => Ok(delivery),
        Ok(Err(_)) => Err(Err(outage("the producer has ended"))),
        Err(_) => Err(Err(outage("no confirmation in time"))),
    }
}
