//! An entry of a stream: the command that adds it, and what the server's answer means.

use redis::{ErrorKind, Pipeline, RedisError, RedisResult};

use super::super::{Failure, Receipt, broken, outage, parsed, reject};
use super::access::{Address, words};
use signalbus_core::message::Message;
use signalbus_core::signal::Outcome;

/// The limits of a server, in bytes: it closes the connection of a client that exceeds one.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Maximum size of a value.
    pub(super) longest: usize,
    /// Maximum size of a command.
    pub(super) total: usize,
}

/// What a server answers for one message: a receipt, or which other node of its cluster has the stream.
pub(super) type Answer = Result<Receipt, Redirect>;

/// The node that a cluster names instead of adding an entry.
#[derive(Clone)]
pub(super) struct Redirect {
    pub(super) node: Address,
    /// The stream is just moving there: the node takes it if asked to, and other messages still go where they went.
    pub(super) asking: bool,
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

/// Adds the command for a message; `asking` makes the next node of a stream that is moving take it.
///
/// # Errors
/// Redis cannot carry the message.
pub(super) fn add(pipeline: &mut Pipeline, message: &Message, asking: bool, limits: Limits) -> Result<(), Outcome> {
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
    if asking {
        pipeline.cmd("ASKING").ignore();
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

/// Returns the reason for which the server at `address` has not answered, or accepts nothing.
pub(super) fn failure(error: &RedisError, address: &Address) -> Failure {
    let reason = format!("Redis at {address}: {}", words(error));
    if error.is_io_error() || !is_outage(error) { broken(reason) } else { outage(reason) }
}

/// Returns what the answer of the server at `address` means for a message.
pub(super) fn classify(answer: RedisResult<String>, message: &Message, address: &Address) -> Answer {
    let Err(error) = answer else { return Ok(Ok(Outcome::Sent)) };
    if let Some(redirect) = redirect(&error, address) {
        return Err(redirect);
    }
    let (stream, words) = (&message.destination, words(&error));
    Ok(match error.code() {
        Some("WRONGTYPE") => Ok(reject(format!("Redis: key \"{stream}\" is not a stream"))),
        Some("NOPERM") => Ok(Outcome::retry(format!("Redis does not allow this user to add to stream \"{stream}\": {words}"))),
        _ if is_outage(&error) => Err(outage(format!("Redis at {address}: {words} (stream \"{stream}\")"))),
        _ => Ok(Outcome::retry(format!("Redis refuses an entry of stream \"{stream}\": {words}"))),
    })
}

/// Returns where the server at `address` sends a message on to.
fn redirect(error: &RedisError, address: &Address) -> Option<Redirect> {
    let (node, _) = error.redirect_node()?;
    Some(Redirect { node: Address::parse(node, address)?, asking: error.code() == Some("ASK") })
}

/// Returns whether an error means that the server currently accepts nothing.
pub(super) fn is_outage(error: &RedisError) -> bool {
    const CODES: [&str; 10] =
        ["OOM", "MISCONF", "READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "BUSY", "NOAUTH"];
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) || error.code().is_some_and(|code| CODES.contains(&code))
}
