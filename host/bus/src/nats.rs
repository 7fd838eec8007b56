//! NATS with JetStream: a message counts as sent once a stream has stored it.
//!
//! A subject that no stream has must never count as sent. `shared_connection` connects, and replaces a
//! lost connection; `instrumented` measures and redacts.

mod ways;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use async_nats::header::{HeaderName, HeaderValue, NATS_EXPECTED_LAST_MESSAGE_ID};
use async_nats::jetstream::context::{
    ContextBuilder, GetStreamByNameErrorKind, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr, ServerError};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::shared_connection::SharedConnection;
use super::{
    Bus, ConnectionConfig, Failure, Receipt, ReceivingRuns, Run, at_most, broken, goes_on, hold_behind_failure, outage,
    refuse_options, reject, tls, unavailable,
};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};
use ways::{Way, Ways};

/// Maximum length of a subject in bytes. With the address for the answer it has to fit into a line of 4096
/// bytes, the servers' default, which they do not tell.
const LONGEST_SUBJECT: usize = 4000;

/// A connection to NATS.
pub(super) struct Nats {
    servers: Vec<ServerAddr>,
    /// Shown in messages.
    address: String,
    login: Login,
    tls: rustls::ClientConfig,
    timeout: Duration,
    connection: SharedConnection<Session>,
}

enum Login {
    Nobody,
    Token(String),
    Password(String, String),
    /// The path of a file with a JWT and its seed.
    Credentials(PathBuf),
}

struct Session {
    jetstream: Context,
    ways: Ways,
    /// Whose messages are on their way to the server.
    turn: tokio::sync::Mutex<()>,
    state: watch::Receiver<ClientState>,
}

/// Events that the server has sent in addition to acknowledgements.
#[derive(Default)]
struct ClientState {
    lost: bool,
    /// Subjects that the user may not publish to.
    denied: HashSet<String>,
}

impl Nats {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        refuse_options("NATS", config)?;
        config.refuse_unknown(&["credentials"])?;
        let login = match (config.user(), config.password(), config.query("credentials")) {
            (None, None, None) => Login::Nobody,
            (None, None, Some(path)) => Login::Credentials(config.folder.join(path)),
            (Some(token), None, None) => Login::Token(token),
            (user, Some(password), None) => Login::Password(user.unwrap_or_default(), password),
            _ => return Err("NATS takes either a user or `?credentials=`, not both".into()),
        };
        let servers = config.servers(4222);
        let addresses = servers.iter().map(|server| {
            let url =
                Url::parse(&format!("{}://{server}", config.url.scheme())).map_err(|error| format!("\"{server}\": {error}"))?;
            ServerAddr::from_url(url).map_err(|error| error.to_string())
        });
        Ok(Self {
            servers: addresses.collect::<Result<_, String>>()?,
            address: servers.join(","),
            login,
            tls: tls::client(config.ca.as_deref())?,
            timeout: config.timeout,
            connection: SharedConnection::default(),
        })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        let (sender, state) = watch::channel(ClientState::default());
        let options = ConnectOptions::new()
            .name(format!("signalbus {}", env!("CARGO_PKG_VERSION")))
            .connection_timeout(self.timeout)
            // A lost connection has lost its acknowledgements too, so a new one replaces it.
            .max_reconnects(self.servers.len())
            .ignore_discovered_servers()
            .tls_client_config(self.tls.clone())
            .event_callback(move |event| {
                sender.send_modify(|state| state.update(event));
                std::future::ready(())
            });
        let options = match &self.login {
            Login::Nobody => options,
            Login::Token(token) => options.token(token.clone()),
            Login::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
            Login::Credentials(path) => {
                let read = tokio::fs::read_to_string(path).await.and_then(|text| options.credentials(&text));
                read.map_err(|error| Outage::Misconfigured { reason: format!("credentials {}: {error}", path.display()) })?
            }
        };
        let client = options.connect(self.servers.as_slice()).await.map_err(|error| self.refused(&error))?;
        // Limits the acknowledgements in flight; beyond that, callers wait.
        let context = ContextBuilder::new().timeout(self.timeout).max_ack_inflight(65_536).backpressure_on_inflight(true);
        let (jetstream, ways, turn) = (context.build(client), Ways::default(), tokio::sync::Mutex::default());
        Ok(Session { jetstream, ways, turn, state })
    }

    fn refused(&self, error: &async_nats::ConnectError) -> Outage {
        let address = &self.address;
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Outage::Misconfigured { reason: format!("NATS at {address} refuses the login: correct it in the URL") }
            }
            _ => unavailable(format!("NATS at {address}: {error}")),
        }
    }

    /// Publishes runs.
    async fn send(&self, runs: &[Run<'_>], deadline: Instant) -> Result<Vec<Vec<Receipt>>, Outage> {
        let session = self.connection.get(Session::is_usable, self.connect(), deadline).await?;
        let mut pending = Vec::with_capacity(runs.len());
        {
            // Another call's message in between would cut a run.
            let turn = timeout_at(deadline, session.turn.lock()).await;
            let _turn = turn.map_err(|_| unavailable("NATS accepts no more messages"))?;
            for run in runs {
                pending.push(match session.way(run, deadline).await {
                    Way::Batch => Pending::Batch(session.publish_batch(run, deadline).await),
                    Way::Chain => Pending::Each(session.publish_run(run, deadline).await),
                    Way::OneByOne => Pending::None,
                });
            }
        }
        let one_by_one = runs.iter().zip(&pending).filter(|(_, pending)| matches!(pending, Pending::None));
        let one_by_one = join_all(one_by_one.map(|(run, _)| session.publish_one_by_one(run, deadline))).await;
        let mut one_by_one = one_by_one.into_iter();
        let mut receipts = Vec::with_capacity(runs.len());
        let mut unrouted = HashMap::new();
        for (run, pending) in runs.iter().zip(pending) {
            receipts.push(match pending {
                Pending::Each(acks) => session.receipts(run, acks, &mut unrouted, deadline).await,
                Pending::None => one_by_one.next().unwrap_or_default(),
                Pending::Batch(Err(receipt)) => vec![receipt],
                Pending::Batch(Ok((count, ack))) => {
                    match session.receipt(ack, &run[0].destination, false, &mut unrouted, deadline).await {
                        Some(receipt @ (Ok(Outcome::Sent) | Err(_))) => vec![receipt; count],
                        // It does not say for which of them.
                        _ => Vec::new(),
                    }
                }
            });
        }
        self.connection.end_call(&session, &receipts.concat(), session.is_usable()).await;
        Ok(receipts)
    }
}

/// A run on its way.
enum Pending {
    Each(Vec<Result<PublishAckFuture, Receipt>>),
    /// How many messages have one acknowledgement.
    Batch(Result<(usize, PublishAckFuture), Receipt>),
    /// None of its messages is.
    None,
}

impl Bus for Nats {
    fn publish_in_order<'a>(&'a self, runs: &'a [Run<'a>], deadline: Instant) -> ReceivingRuns<'a> {
        Box::pin(self.send(runs, deadline))
    }
}

impl Session {
    fn is_usable(&self) -> bool {
        !self.state.borrow().lost
    }

    /// Publishes the messages of a run until one cannot be, does not tell which one it follows, or has a condition of its
    /// own: each but the first is stored only if the one before it is the last of its stream, since that one may have been
    /// lost or refused.
    async fn publish_run(&self, run: Run<'_>, deadline: Instant) -> Vec<Result<PublishAckFuture, Receipt>> {
        let (mut pending, mut previous) = (Vec::with_capacity(run.len()), None);
        for message in run {
            if !pending.is_empty() && (previous.is_none() || expects(message)) {
                break;
            }
            pending.push(self.publish(message, previous, deadline).await);
            if pending.last().is_some_and(Result::is_err) {
                break;
            }
            previous = message.id.as_deref();
        }
        pending
    }

    /// Publishes the messages of a run until one is not stored.
    async fn publish_one_by_one(&self, run: Run<'_>, deadline: Instant) -> Vec<Receipt> {
        let (mut receipts, mut unrouted) = (Vec::with_capacity(run.len()), HashMap::new());
        for message in run {
            let receipt = match self.publish(message, None, deadline).await {
                Ok(ack) => self.receipt(ack, &message.destination, false, &mut unrouted, deadline).await,
                Err(receipt) => Some(receipt),
            };
            receipts.extend(receipt);
            if !goes_on(&receipts) {
                break;
            }
        }
        receipts
    }

    /// Publishes a message, behind the one with this id.
    async fn publish(&self, message: &Message, behind: Option<&str>, deadline: Instant) -> Result<PublishAckFuture, Receipt> {
        let mut headers = self.checked(message).map_err(Ok)?;
        if let Some(previous) = behind {
            headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, previous);
        }
        self.publish_with(message, headers, deadline).await
    }

    /// Returns the headers of a message.
    ///
    /// # Errors
    /// NATS, or this server, cannot carry the message.
    fn checked(&self, message: &Message) -> Result<HeaderMap, Outcome> {
        let headers = headers(message)?;
        let subject = message.destination.as_str();
        let tokens_are_plain = subject.split('.').all(|token| !token.is_empty() && token != "*" && token != ">");
        if !tokens_are_plain || subject.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err(reject(format!("{subject:?} is not a subject that can be published to")));
        }
        at_most(LONGEST_SUBJECT, "NATS", "`destination`", subject)?;
        match message.body.len() > self.jetstream.client().server_info().max_payload {
            true => Err(self.too_large(message)),
            false => Ok(headers),
        }
    }

    async fn publish_with(&self, message: &Message, headers: HeaderMap, deadline: Instant) -> Result<PublishAckFuture, Receipt> {
        let published = self.jetstream.publish_with_headers(message.destination.clone(), headers, message.body.clone().into());
        match timeout_at(deadline, published).await {
            Ok(Ok(ack)) => Ok(ack),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(Ok(self.too_large(message))),
            Ok(Err(error)) => Err(Err(self.failure(&error))),
            Err(_) => Err(Err(outage("NATS accepts no more messages"))),
        }
    }

    /// Waits for the receipts of a run. It ends where somebody else's message is the last of the stream.
    async fn receipts(
        &self,
        run: Run<'_>,
        acks: Vec<Result<PublishAckFuture, Receipt>>,
        unrouted: &mut HashMap<String, Receipt>,
        deadline: Instant,
    ) -> Vec<Receipt> {
        let mut told = Vec::with_capacity(acks.len());
        for (n, (ack, message)) in acks.into_iter().zip(run).enumerate() {
            let receipt = match ack {
                Ok(ack) => self.receipt(ack, &message.destination, n > 0, unrouted, deadline).await,
                Err(receipt) => Some(receipt),
            };
            let Some(receipt) = receipt else {
                if goes_on(&told) {
                    self.ways.share(&message.destination);
                }
                break;
            };
            told.push(receipt);
        }
        hold_behind_failure(&mut told);
        told
    }

    /// Returns the receipt of a message; `None` if it is behind another one, which is not the last of its stream any more.
    async fn receipt(
        &self,
        ack: PublishAckFuture,
        subject: &str,
        is_behind: bool,
        unrouted: &mut HashMap<String, Receipt>,
        deadline: Instant,
    ) -> Option<Receipt> {
        let mut state = self.state.clone();
        let told = tokio::select! {
            biased;
            told = timeout_at(deadline, ack.into_future()) => told,
            state = state.wait_for(|state| state.lost || state.denied.contains(subject)) => return Some(match state {
                Ok(state) if !state.lost => {
                    Ok(Outcome::retry(format!("NATS does not allow this user to publish to subject \"{subject}\"")))
                }
                _ => Err(broken("NATS: the connection was lost")),
            }),
        };
        Some(match told {
            Ok(Ok(_)) => Ok(Outcome::Sent),
            Ok(Err(error)) if is_behind && is_cut(&error) => return None,
            Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
                if !unrouted.contains_key(subject) {
                    unrouted.insert(subject.to_owned(), self.why_unrouted(subject).await);
                }
                unrouted[subject].clone()
            }
            Ok(Err(error)) => refusal(&error, subject).unwrap_or_else(|| Err(self.failure(&error))),
            Err(_) => Err(outage("NATS did not acknowledge in time")),
        })
    }

    fn too_large(&self, message: &Message) -> Outcome {
        let (limit, length) = (self.jetstream.client().server_info().max_payload, message.body.len());
        reject(format!(
            "NATS takes messages of at most {limit} bytes; this one's body has {length}, beside its headers: shorten them, or \
             raise `max_payload`"
        ))
    }

    /// Tells a broken connection from a bus that takes nothing.
    fn failure(&self, error: &PublishError) -> Failure {
        match self.is_usable() {
            true => outage(format!("NATS: {error}")),
            false => broken(format!("NATS: {error}")),
        }
    }

    /// Determines why nobody answered: no stream has the subject, or the stream has no leader.
    async fn why_unrouted(&self, subject: &str) -> Receipt {
        const PATIENCE: Duration = Duration::from_secs(2);
        match timeout(PATIENCE, self.jetstream.stream_by_subject(subject)).await {
            Ok(Ok(stream)) => Err(outage(format!("NATS: stream \"{stream}\" does not answer"))),
            Ok(Err(error)) if error.kind() != GetStreamByNameErrorKind::NotFound && !self.is_usable() => {
                Err(broken(format!("NATS: {error}")))
            }
            _ => Ok(Outcome::retry(format!("no stream has subject \"{subject}\"; create one, or correct `destination`"))),
        }
    }
}

impl ClientState {
    /// Maximum number of denied subjects kept: more than an application has.
    const MOST: usize = 1000;

    fn update(&mut self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.lost = true,
            Event::ServerError(ServerError::Other(text)) => {
                let Some(subject) = text.strip_prefix("Permissions Violation for Publish to ") else { return };
                if self.denied.len() < Self::MOST {
                    self.denied.insert(subject.trim_matches('"').to_owned());
                }
            }
            _ => {}
        }
    }
}

/// Converts the headers, id and options of a message.
///
/// # Errors
/// NATS cannot carry them.
fn headers(message: &Message) -> Result<HeaderMap, Outcome> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let header = name.parse::<HeaderName>().map_err(|error| reject(format!("header {name:?}: {error}")))?;
        let value = value.parse::<HeaderValue>().map_err(|error| reject(format!("header {name:?}: {error}")))?;
        headers.append(header, value);
        Ok::<(), Outcome>(())
    };
    for (name, value) in &message.headers {
        add(name, value)?;
    }
    if let Some(content_type) = &message.content_type {
        add("Content-Type", content_type)?;
    }
    if let Some(id) = &message.id {
        add("Nats-Msg-Id", id)?;
    }
    for (name, value) in &message.options {
        match name.strip_prefix("nats.") {
            Some("expected-stream") => add("Nats-Expected-Stream", value)?,
            Some(_) => return Err(reject(format!("NATS has no option \"{name}\""))),
            None => {}
        }
    }
    Ok(headers)
}

/// Returns what the server has said; `None` if the error is the client's.
fn said(error: &PublishError) -> Option<&async_nats::jetstream::Error> {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref())
}

/// Returns whether a message has a condition of its own on what is in the stream.
fn expects(message: &Message) -> bool {
    const PREFIX: &str = "Nats-Expected-";
    let begins = |name: &str| name.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX));
    message.headers.iter().any(|(name, _)| begins(name))
}

/// Returns whether the message that was expected is not the last one of the stream.
fn is_cut(error: &PublishError) -> bool {
    said(error).is_some_and(|said| said.error_code() == ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID)
}

fn refusal(error: &PublishError, subject: &str) -> Option<Receipt> {
    let said = said(error)?;
    let text = format!("NATS refuses subject \"{subject}\": {said}");
    Some(match said.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Ok(reject(text)),
        ErrorCode::STREAM_STORE_FAILED => Ok(Outcome::retry(format!("{text}; the stream or its disk is full"))),
        ErrorCode::INSUFFICIENT_RESOURCES | ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
            Err(outage(text))
        }
        _ => Ok(Outcome::retry(text)),
    })
}
