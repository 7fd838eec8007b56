//! Redis and Valkey streams: a message becomes an entry of the stream that its destination names.
//!
//! A message must never count as sent before the server has answered. `shared_connection` connects;
//! `instrumented` measures and redacts.

use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, Pipeline, RedisError, RedisResult, TlsCertificates};
use tokio::time::{Instant, timeout, timeout_at};

use super::shared_connection::SharedConnection;
use super::{
    Bus, ConnectionConfig, Failure, IDLE, Receipt, Receiving, broken, outage, parsed, refuse_options, reject, tls, unavailable,
};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};

/// A connection to Redis, shared by all calls.
pub(super) struct Redis {
    client: Client,
    /// Shown in messages.
    address: String,
    connection: SharedConnection<Session>,
}

struct Session {
    connection: MultiplexedConnection,
    limits: Limits,
    /// When the server last answered.
    answered: Mutex<Instant>,
}

/// The limits of the server, in bytes: it closes the connection of a client that exceeds one.
#[derive(Clone, Copy)]
struct Limits {
    /// Maximum size of a value.
    longest: usize,
    /// Maximum size of a command.
    total: usize,
}

impl Redis {
    pub(super) fn new(config: &ConnectionConfig) -> Result<Self, String> {
        refuse_options("Redis", config)?;
        config.refuse_unknown(&[])?;
        let address = config.server(6379);
        let url = &config.url;
        let client = match &config.ca {
            Some(ca) => {
                let root_cert = Some(tls::roots(ca)?.into_bytes());
                Client::build_with_tls(url.as_str(), TlsCertificates { client_tls: None, root_cert })
            }
            None => Client::open(url.as_str()),
        };
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, address, connection: SharedConnection::default() })
    }

    async fn connect(&self) -> Result<Session, Outage> {
        // Each call limits its own waits.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.map_err(|error| self.refused(&error))?;
        // The defaults of Redis, where the user may not ask.
        let longest = self.setting(&mut connection, "proto-max-bulk-len").await?.unwrap_or(512 << 20);
        let total = self.setting(&mut connection, "client-query-buffer-limit").await?.unwrap_or(1 << 30);
        let limits = Limits { longest, total };
        Ok(Session { connection, limits, answered: Mutex::new(Instant::now()) })
    }

    /// Returns a setting of the server, if the user may ask for it.
    async fn setting(&self, connection: &mut MultiplexedConnection, name: &str) -> Result<Option<usize>, Outage> {
        let mut asked = redis::cmd("CONFIG");
        let answer: RedisResult<Vec<String>> = asked.arg("GET").arg(name).query_async(connection).await;
        match answer {
            Ok(answer) => Ok(answer.get(1).and_then(|text| text.parse().ok())),
            Err(error) if error.code() == Some("NOAUTH") || is_outage(&error) => Err(self.refused(&error)),
            Err(_) => Ok(None),
        }
    }

    fn refused(&self, error: &RedisError) -> Outage {
        let address = &self.address;
        let login = error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
        match login {
            true => {
                Outage::Misconfigured { reason: format!("Redis at {address} refuses the login: correct it in the URL: {error}") }
            }
            false => unavailable(format!("Redis at {address}: {error}")),
        }
    }

    async fn send(&self, messages: &[Message], deadline: Instant) -> Result<Vec<Receipt>, Outage> {
        let mut session = self.connection.get(|_| true, self.connect(), deadline).await?;
        if !session.is_alive().await {
            self.connection.lose(&session).await;
            session = self.connection.get(|_| true, self.connect(), deadline).await?;
        }
        let mut pipeline = Pipeline::with_capacity(messages.len());
        let mut receipts: Vec<Option<Receipt>> = Vec::with_capacity(messages.len());
        for message in messages {
            receipts.push(add(&mut pipeline, message, session.limits).err().map(Ok));
        }
        let mut answers = session.answers(&mut pipeline, deadline).await.into_iter();
        for (receipt, message) in receipts.iter_mut().zip(messages) {
            if receipt.is_none() {
                *receipt = answers.next().map(|answer| answer.and_then(|answer| classify(answer, message)));
            }
        }
        let receipts = receipts.into_iter().map(|receipt| receipt.unwrap_or_else(|| Err(outage("Redis did not answer"))));
        let receipts: Vec<Receipt> = receipts.collect();
        self.connection.end_call(&session, &receipts, true).await;
        Ok(receipts)
    }
}

impl Bus for Redis {
    fn publish<'a>(&'a self, messages: &'a [Message], deadline: Instant) -> Receiving<'a> {
        Box::pin(self.send(messages, deadline))
    }
}

impl Session {
    /// Pings a connection that was idle: the server may have closed it or restarted, and the messages of
    /// the call would be lost.
    async fn is_alive(&self) -> bool {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.elapsed() < IDLE {
            return true;
        }
        let (ping, mut connection) = (redis::cmd("PING"), self.connection.clone());
        timeout(IDLE, ping.exec_async(&mut connection)).await.is_ok_and(|answer| !answer.is_err_and(|error| error.is_io_error()))
    }

    /// Returns one answer per command, or the reason why there is none.
    async fn answers(&self, pipeline: &mut Pipeline, deadline: Instant) -> Vec<Result<RedisResult<String>, Failure>> {
        let count = pipeline.cmd_iter().count();
        if count == 0 {
            return Vec::new();
        }
        let mut connection = self.connection.clone();
        let asked = pipeline.ignore_errors().query_async::<Vec<RedisResult<String>>>(&mut connection);
        let failure = match timeout_at(deadline, asked).await {
            Ok(Ok(answers)) => {
                *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                return answers.into_iter().map(Ok).collect();
            }
            Ok(Err(error)) if is_outage(&error) && !error.is_io_error() => outage(format!("Redis: {error}")),
            Ok(Err(error)) => broken(format!("Redis: {error}")),
            Err(_) => outage("Redis did not answer in time"),
        };
        vec![Err(failure); count]
    }
}

/// Checks what Redis would answer by closing the connection.
fn check(message: &Message, body: &str, limits: Limits) -> Result<(), Outcome> {
    /// Maximum number of parts of a command, without those that are always there.
    const MOST_PARTS: usize = (1 << 20) - 20;
    let Limits { longest, total } = limits;
    let refused = |what: &str, size: usize, most: usize, setting: &str| {
        reject(format!("Redis takes {what} of at most {most} bytes, not {size}: shorten the message, or raise `{setting}`"))
    };
    let headers = message.headers.iter().flat_map(|(name, value)| [name.len() + "header.".len(), value.len()]);
    let known = [&message.id, &message.key, &message.content_type].into_iter().flatten().map(String::len);
    let lengths: Vec<usize> = headers.chain(known).chain([message.body.len(), message.destination.len(), body.len()]).collect();
    let length = lengths.iter().copied().max().unwrap_or_default();
    // Each part has a line with its length.
    let sum = lengths.iter().map(|length| length + 16).sum::<usize>() + 256;
    match () {
        () if length > longest => Err(refused("values", length, longest, "proto-max-bulk-len")),
        () if sum > total => Err(refused("entries", sum, total, "client-query-buffer-limit")),
        () if lengths.len() > MOST_PARTS => Err(reject(format!(
            "Redis takes entries of at most {MOST_PARTS} names and values, not {}: use fewer headers",
            lengths.len()
        ))),
        () => Ok(()),
    }
}

/// Adds the command for a message.
///
/// # Errors
/// Redis cannot carry the message.
fn add(pipeline: &mut Pipeline, message: &Message, limits: Limits) -> Result<(), Outcome> {
    let (mut most, mut body) = (None, "body");
    for (name, value) in &message.options {
        match name.strip_prefix("redis.") {
            Some("maxlen") => most = Some(parsed::<u64>(name, value)?),
            Some("field") => body = value,
            Some(_) => return Err(reject(format!("Redis has no option \"{name}\""))),
            None => {}
        }
    }
    check(message, body, limits)?;
    if message.destination.is_empty() {
        return Err(reject("`destination` is empty; name a stream"));
    }
    let command = pipeline.cmd("XADD").arg(&message.destination);
    if let Some(most) = most {
        command.arg("MAXLEN").arg("~").arg(most);
    }
    command.arg("*");
    let known = [("id", &message.id), ("key", &message.key), ("content_type", &message.content_type)];
    for (name, value) in known {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    for (name, value) in &message.headers {
        command.arg(format!("header.{name}")).arg(value);
    }
    command.arg(body).arg(message.body.as_slice());
    Ok(())
}

fn classify(answer: RedisResult<String>, message: &Message) -> Receipt {
    let Err(error) = answer else { return Ok(Outcome::Sent) };
    let stream = &message.destination;
    match error.code() {
        Some("WRONGTYPE") => Ok(reject(format!("Redis: key \"{stream}\" is not a stream"))),
        Some("NOPERM") => Ok(Outcome::retry(format!("Redis does not allow this user to add to stream \"{stream}\": {error}"))),
        Some("MOVED" | "ASK") => {
            Ok(Outcome::retry(format!("stream \"{stream}\" is on another node of the cluster: name that one in the URL")))
        }
        _ if is_outage(&error) => Err(outage(format!("Redis: {error}"))),
        _ => Ok(Outcome::retry(format!("Redis refuses an entry of stream \"{stream}\": {error}"))),
    }
}

/// Returns whether an error means that the server currently accepts nothing.
fn is_outage(error: &RedisError) -> bool {
    const CODES: [&str; 10] =
        ["OOM", "MISCONF", "READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "BUSY", "NOAUTH"];
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) || error.code().is_some_and(|code| CODES.contains(&code))
}
