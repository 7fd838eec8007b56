//! A stand-in for the relay, for tests on your own machine; absent from Wasm builds.
//!
//! Every test thread has its own. By default, settings and secrets are empty, log records go to standard
//! error and are kept, the bus accepts everything, and every HTTP server answers 200.
//!
//! ```
//! use signalbus_guest::{Error, Message, Outcome, testing};
//!
//! testing::settings([("level", "debug")]);
//! testing::publish_with(|_| Err(Error::unavailable("broker is down")));
//!
//! let result = Message::new("bus", "orders").publish();
//! assert_eq!(result, Err(Error::unavailable("broker is down")));
//! ```

use crate::bindings::single::signalbus::plugin::log::Level;
use crate::bindings::types::{self, RunOutcome};
use crate::http;
use crate::{BulkResult, Error, Message, Outcome, Signal};
use std::cell::RefCell;

type Pairs = Vec<(String, String)>;
type Bus = Box<dyn FnMut(&[Message]) -> BulkResult>;
type Server = Box<dyn FnMut(&http::Request) -> Result<http::Response, http::Error>>;

/// A log record that the code under test has emitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The level.
    pub level: Level,
    /// The message.
    pub message: String,
    /// The fields, in their order.
    pub fields: Vec<(String, String)>,
}

#[derive(Default)]
struct Relay {
    settings: Pairs,
    secrets: Pairs,
    records: Vec<Record>,
    published: Vec<Message>,
    bus: Option<Bus>,
    requests: Vec<http::Request>,
    server: Option<Server>,
}

thread_local! {
    static RELAY: RefCell<Relay> = RefCell::default();
}

fn relay<T>(use_it: impl FnOnce(&mut Relay) -> T) -> T {
    RELAY.with_borrow_mut(use_it)
}

fn owned<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn find(pairs: &Pairs, key: &str) -> Option<String> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
}

/// Replaces all settings.
pub fn settings<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) {
    relay(|relay| relay.settings = owned(settings));
}

/// Replaces all secrets.
pub fn secrets<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) {
    relay(|relay| relay.secrets = owned(secrets));
}

/// Makes `bus` answer every later publish.
pub fn publish_with(bus: impl FnMut(&[Message]) -> BulkResult + 'static) {
    relay(|relay| relay.bus = Some(Box::new(bus)));
}

/// Takes the messages published so far.
pub fn take_published() -> Vec<Message> {
    relay(|relay| std::mem::take(&mut relay.published))
}

/// Makes `server` answer every later HTTP request.
pub fn http_with(server: impl FnMut(&http::Request) -> Result<http::Response, http::Error> + 'static) {
    relay(|relay| relay.server = Some(Box::new(server)));
}

/// Takes the HTTP requests sent so far.
pub fn take_requests() -> Vec<http::Request> {
    relay(|relay| std::mem::take(&mut relay.requests))
}

/// Takes the log records emitted so far.
pub fn take_records() -> Vec<Record> {
    relay(|relay| std::mem::take(&mut relay.records))
}

/// Calls the function of `plugin!(bulk send_all)` as the relay does for an ordered signal type: with the signals of each
/// order key, in their order. `None` stands for a signal that was not tried, behind one that was not sent.
///
/// ```
/// use signalbus_guest::{Error, Message, Outcome, Signal, publish_each, testing};
///
/// let signals = [1, 2, 3].map(|id| Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}")).column("id", id).build());
/// let answer = testing::send_runs(
///     |signals| publish_each(signals, |signal| match signal.get("id")? {
///         2 => Err(Error::retry("not yet")),
///         _ => Ok(Message::new("bus", "orders").id(signal.id())),
///     }),
///     &[signals.to_vec()],
/// );
/// assert_eq!(answer, Ok(vec![vec![Some(Outcome::Sent), Some(Outcome::retry("not yet")), None]]));
/// ```
///
/// # Errors
///
/// Returns the outage that the function returned.
pub fn send_runs(send_all: fn(&[Signal]) -> BulkResult, runs: &[Vec<Signal>]) -> Result<Vec<Vec<Option<Outcome>>>, Error> {
    let lengths: Vec<usize> = runs.iter().map(Vec::len).collect();
    let lists = crate::export::send_runs(send_all, &runs.concat(), &lengths).map_err(Error::of_outage)?;
    let outcome = |outcome| match outcome {
        RunOutcome::Sent => Some(Outcome::Sent),
        RunOutcome::Skip => Some(Outcome::Skip),
        RunOutcome::Retry(retry) => Some(Outcome::Retry(retry)),
        RunOutcome::Reject(reason) => Some(Outcome::Reject(reason)),
        RunOutcome::Held => None,
    };
    Ok(lists.into_iter().map(|list| list.into_iter().map(outcome).collect()).collect())
}

/// Replaces the module `host` of Wasm builds.
pub(crate) mod host {
    use super::*;

    pub fn log_enabled(_: Level) -> bool {
        true
    }

    pub fn log_emit(level: Level, message: &str, fields: &[(String, String)]) {
        eprintln!("{level:?}: {message} {fields:?}");
        let record = Record { level, message: message.to_owned(), fields: fields.to_vec() };
        relay(|relay| relay.records.push(record));
    }

    pub fn setting(key: &str) -> Option<String> {
        relay(|relay| find(&relay.settings, key))
    }

    pub fn settings() -> Pairs {
        relay(|relay| relay.settings.clone())
    }

    pub fn secret(key: &str) -> Option<String> {
        relay(|relay| find(&relay.secrets, key))
    }

    /// Sends requests one after the other, since concurrency makes no difference here.
    pub fn exchange(requests: &mut dyn http::Requests, _at_most: usize) {
        let mut server = relay(|relay| relay.server.take());
        let mut answer = |request: http::Request| {
            let answer = match &mut server {
                Some(server) => server(&request),
                None => Ok(http::Response::new(200)),
            };
            relay(|relay| relay.requests.push(request));
            answer
        };
        while let Some((number, request)) = requests.next() {
            let answer = answer(request);
            requests.answered(number, answer);
        }
        relay(|relay| relay.server = server);
    }

    /// Publishes the messages one by one, each run up to the first that is not sent.
    pub fn publish_in_order(lists: &[Vec<Message>]) -> Result<Vec<Vec<RunOutcome>>, types::Outage> {
        let mut answers = Vec::with_capacity(lists.len());
        for list in lists {
            let mut outcomes = Vec::with_capacity(list.len());
            for message in list {
                let goes_on = outcomes.iter().all(|outcome| *outcome == RunOutcome::Sent);
                outcomes.push(match goes_on {
                    true => publish(std::slice::from_ref(message))?.into_iter().next().map_or(RunOutcome::Held, RunOutcome::from),
                    false => RunOutcome::Held,
                });
            }
            answers.push(outcomes);
        }
        Ok(answers)
    }

    pub fn publish(messages: &[Message]) -> Result<Vec<Outcome>, types::Outage> {
        relay(|relay| relay.published.extend_from_slice(messages));
        // Taken out while it runs, so that it can log and read settings itself.
        let mut bus = relay(|relay| relay.bus.take());
        let answer = match &mut bus {
            Some(bus) => bus(messages),
            None => Ok(vec![Outcome::Sent; messages.len()]),
        };
        relay(|relay| relay.bus = bus);
        crate::bulk::answer(answer, messages.len())
    }
}
