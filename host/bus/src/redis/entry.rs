//! An entry of a stream: the command that adds it, and what the server's answer means.

use redis::cluster_routing::Slot;
use redis::{ErrorKind, FromRedisValue as _, Pipeline, RedisError, RedisResult, Value};

use super::super::{Failure, Receipt, Run, broken, outage, parsed, reject};
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

/// What a server answers for an entry, or for entries that are added by one command: receipts for the first of them, or
/// which other node of its cluster has their streams.
pub(super) type Answer = Result<Vec<Receipt>, Redirect>;

/// Adds entries in their order, and stops at the first that is refused: a transaction would go on. Returns how many were
/// added, and the error.
const SCRIPT: &str = "local at = 1 \
    for number, stream in ipairs(KEYS) do \
      local added = redis.pcall('XADD', stream, unpack(ARGV, at + 1, at + ARGV[at])) \
      if type(added) == 'table' and added.err then return {number - 1, added} end \
      at = at + 1 + ARGV[at] \
    end \
    return {#KEYS}";

/// Returns how many of the messages, from the first on, one command can add: at least one. A cluster has all of its streams
/// on one node.
pub(super) fn together(messages: Run<'_>, has_slots: bool) -> usize {
    /// The server does nothing else meanwhile.
    const MOST: usize = 500;
    /// The least that a server can be configured to take.
    const ROOM: usize = 1 << 20;
    /// What Lua can unpack, less what an entry has beside its headers.
    const MOST_HEADERS: usize = (7000 - 20) / 2;
    let Some(first) = messages.first() else { return 0 };
    let mut room = ROOM;
    let fits = messages.iter().take(MOST).take_while(|message| {
        let stream = &message.destination;
        let is_here = *stream == first.destination || !has_slots || Slot::for_key(stream) == Slot::for_key(&first.destination);
        let left = room.checked_sub(size(message, "body"));
        room = left.unwrap_or_default();
        is_here && left.is_some() && message.headers.len() <= MOST_HEADERS
    });
    fits.count().max(1)
}

/// The node that a cluster names instead of adding an entry.
#[derive(Clone)]
pub(super) struct Redirect {
    pub(super) node: Address,
    /// The stream is just moving there: the node takes it if asked to, and other messages still go where they went.
    pub(super) asking: bool,
}

/// Returns the lengths of the parts of an entry.
fn lengths(message: &Message, body: &str) -> impl Iterator<Item = usize> {
    let headers = message.headers.iter().flat_map(|(name, value)| [name.len() + "header.".len(), value.len()]);
    let known = [&message.id, &message.key, &message.content_type].into_iter().flatten().map(String::len);
    headers.chain(known).chain([message.body.len(), message.destination.len(), body.len()])
}

/// Returns how many bytes its command takes, or a few more.
fn size(message: &Message, body: &str) -> usize {
    // Each part has a line with its length.
    lengths(message, body).map(|length| length + 16).sum::<usize>() + 256
}

/// Checks what Redis would answer by closing the connection.
fn check(message: &Message, body: &str, limits: Limits) -> Result<(), Outcome> {
    /// Maximum number of parts of a command, without those that are always there.
    const MOST_PARTS: usize = (1 << 20) - 20;
    let Limits { longest, total } = limits;
    let refused = |what: &str, size: usize, most: usize, setting: &str| {
        reject(format!("Redis takes {what} of at most {most} bytes, not {size}: shorten the message, or raise `{setting}`"))
    };
    let length = lengths(message, body).max().unwrap_or_default();
    let (sum, parts) = (size(message, body), lengths(message, body).count());
    match () {
        () if length > longest => Err(refused("values", length, longest, "proto-max-bulk-len")),
        () if sum > total => Err(refused("entries", sum, total, "client-query-buffer-limit")),
        () if parts > MOST_PARTS => {
            Err(reject(format!("Redis takes entries of at most {MOST_PARTS} names and values, not {parts}: use fewer headers")))
        }
        () => Ok(()),
    }
}

/// A message that Redis can carry.
struct Entry<'a> {
    message: &'a Message,
    /// Maximum length of the stream.
    most: Option<u64>,
    /// The name of the field with the body.
    body: &'a str,
}

impl<'a> Entry<'a> {
    /// # Errors
    /// Redis cannot carry the message.
    fn new(message: &'a Message, limits: Limits) -> Result<Self, Outcome> {
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
        Ok(Self { message, most, body })
    }

    fn known(&self) -> impl Iterator<Item = (&str, &String)> {
        let Message { id, key, content_type, .. } = self.message;
        let known = [("id", id), ("key", key), ("content_type", content_type)];
        known.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Returns how many arguments there are behind the stream.
    fn len(&self) -> usize {
        let trim = if self.most.is_some() { 3 } else { 0 };
        trim + 1 + 2 * (self.known().count() + self.message.headers.len() + 1)
    }

    /// Adds the arguments of `XADD` behind the stream.
    fn write(&self, command: &mut Pipeline) {
        if let Some(most) = self.most {
            command.arg("MAXLEN").arg("~").arg(most);
        }
        command.arg("*");
        for (name, value) in self.known() {
            command.arg(name).arg(value);
        }
        for (name, value) in &self.message.headers {
            command.arg(format!("header.{name}")).arg(value);
        }
        command.arg(self.body).arg(self.message.body.as_slice());
    }
}

/// Adds the command for messages, in their order, up to the first that Redis cannot carry; `asking` makes the next node of
/// streams that are moving take them. Returns how many of them it has.
///
/// # Errors
/// Redis cannot carry the first message.
pub(super) fn add(pipeline: &mut Pipeline, messages: Run<'_>, asking: bool, limits: Limits) -> Result<usize, Outcome> {
    let mut entries = Vec::with_capacity(messages.len());
    for message in messages {
        match Entry::new(message, limits) {
            Ok(entry) => entries.push(entry),
            Err(outcome) if entries.is_empty() => return Err(outcome),
            Err(_) => break,
        }
    }
    if asking {
        pipeline.cmd("ASKING").ignore();
    }
    if let [entry] = entries.as_slice() {
        entry.write(pipeline.cmd("XADD").arg(&entry.message.destination));
        return Ok(1);
    }
    let command = pipeline.cmd("EVAL").arg(SCRIPT).arg(entries.len());
    for entry in &entries {
        command.arg(&entry.message.destination);
    }
    for entry in &entries {
        entry.write(command.arg(entry.len()));
    }
    Ok(entries.len())
}

/// Returns what the answer of the server at `address` means for the messages of a command.
pub(super) fn classify(answer: RedisResult<Value>, messages: Run<'_>, address: &Address) -> Answer {
    let unreadable = |error: redis::ParsingError| outage(format!("Redis at {address}: {error}"));
    let (added, error) = match answer {
        Ok(Value::Array(told)) => {
            let mut told = told.into_iter();
            let added = told.next().map_or(Ok(0), usize::from_redis_value);
            let error = told.next().and_then(|error| error.extract_error().err());
            match added {
                Ok(added) => (added, error),
                Err(error) => return Ok(vec![Err(unreadable(error))]),
            }
        }
        Ok(_) => (1, None),
        Err(error) => (0, Some(error)),
    };
    let mut receipts = vec![Ok(Outcome::Sent); added];
    if let Some(error) = error {
        if let Some(redirect) = redirect(&error, address) {
            return Err(redirect);
        }
        // A script as a whole may be refused for any of its messages: they go one by one.
        if added > 0 || messages.len() == 1 || is_outage(&error) {
            receipts.extend(messages.get(added).map(|message| refusal(&error, message, address)));
        }
    }
    Ok(receipts)
}

/// Returns the reason for which the server at `address` has not answered, or accepts nothing.
pub(super) fn failure(error: &RedisError, address: &Address) -> Failure {
    let reason = format!("Redis at {address}: {}", words(error));
    if error.is_io_error() || !is_outage(error) { broken(reason) } else { outage(reason) }
}

fn refusal(error: &RedisError, message: &Message, address: &Address) -> Receipt {
    let (stream, words) = (&message.destination, words(error));
    match error.code() {
        Some("WRONGTYPE") => Ok(reject(format!("Redis: key \"{stream}\" is not a stream"))),
        Some("NOPERM") => Ok(Outcome::retry(format!("Redis does not allow this user to add to stream \"{stream}\": {words}"))),
        _ if is_outage(error) => Err(outage(format!("Redis at {address}: {words} (stream \"{stream}\")"))),
        _ => Ok(Outcome::retry(format!("Redis refuses an entry of stream \"{stream}\": {words}"))),
    }
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
