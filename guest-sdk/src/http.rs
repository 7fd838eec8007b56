//! Requests to HTTP servers.
//!
//! The configuration must grant the origin. The relay pools the connections, uses HTTP/2 where the
//! server supports it, and does not follow redirects:
//!
//! ```toml
//! [signals.OrderPlaced.grants]
//! http = ["https://shop.example"]
//!
//! [signals.OrderPlaced.secrets]
//! token = "${SHOP_TOKEN}"
//! ```
//!
//! ```
//! use signalbus_guest::{Outcome, Result, Signal, http, plugin};
//! use std::time::Duration;
//!
//! fn send(signal: &Signal) -> Result {
//!     let request = http::Request::post("https://shop.example/orders")
//!         .header("authorization", "Bearer {{secret:token}}") // the relay fills it in
//!         .header("idempotency-key", signal.id())
//!         .timeout(Duration::from_secs(5))
//!         .json(signal)?;
//!     match http::send(request)?.status {
//!         200..=299 => Ok(Outcome::Sent),
//!         status => Ok(Outcome::retry(format!("shop answered {status}"))),
//!     }
//! }
//!
//! plugin!(send);
//! # use signalbus_guest::testing;
//! # testing::http_with(|_| Ok(http::Response::new(201)));
//! # assert_eq!(send(&Signal::builder("OrderPlaced").build()), Ok(Outcome::Sent));
//! # assert_eq!(testing::take_requests()[0].url, "https://shop.example/orders");
//! ```
//!
//! As with any error, `?` on an [`Error`] means *retry*; [`Verdict`](crate::Verdict) changes that.

mod each;
#[cfg(target_family = "wasm")]
pub(crate) mod exchange;

use crate::{host, runs};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

pub use each::send_each;

/// Default time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Default maximum size of a response body.
const LIMIT: usize = 1 << 20;

/// An HTTP request, to be sent with [`send`], [`send_each`] or [`send_all`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals, e.g. `POST`.
    pub method: String,
    /// The URL, with scheme and host.
    pub url: String,
    /// The headers. In a value, `{{secret:NAME}}` stands for a secret of the signal type: the relay
    /// inserts it on the way out, for granted origins only.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// Time limit for the whole exchange, including the response body.
    pub timeout: Duration,
    /// Maximum number of bytes of the response body to keep.
    pub limit: usize,
}

impl Request {
    /// Creates a request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: Vec::new(), timeout: TIMEOUT, limit: LIMIT }
    }

    /// Creates a `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Creates a `POST` request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Creates a `PUT` request.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body, e.g. text or bytes, which is sent unchanged.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a value as JSON, and the content type to `application/json`. The value may be a
    /// [`Signal`](crate::Signal).
    ///
    /// # Errors
    ///
    /// If the value cannot be represented in JSON, e.g. a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, serde_json::Error> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// Sets the time limit for the whole exchange, including the response body; 30 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of bytes of the response body to keep; 1 MiB by default.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

/// The response of a server, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, e.g. 200.
    pub status: u16,
    /// The headers, in the order of their arrival.
    pub headers: Vec<(String, String)>,
    /// The body, at most as many bytes as the request's limit.
    pub body: Vec<u8>,
    /// Whether the body is incomplete: longer than the limit, or cut off by the server.
    pub truncated: bool,
}

impl Response {
    /// Creates an empty response, for tests.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), truncated: false }
    }

    /// Adds a header, for tests.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body, for tests.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns the first header of this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns whether the status is between 200 and 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The origin, the address that its name resolves to, or a secret is not granted. The relay's log
    /// says which.
    Denied,
    /// There is no connection: unknown host, connection refused, untrusted certificate. Nothing was sent.
    Unreachable(String),
    /// The time limit has passed. The server may have processed the request.
    Timeout,
    /// The connection broke. The server may have processed the request.
    Broken(String),
    /// The request is invalid.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => out.write_str("request is not granted; the relay's log says what is missing"),
            Self::Unreachable(cause) => write!(out, "server is not reachable: {cause}"),
            Self::Timeout => out.write_str("server did not answer in time"),
            Self::Broken(cause) => write!(out, "connection broke: {cause}"),
            Self::Invalid(cause) => write!(out, "request cannot be sent: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

/// Sends a request, and waits for the response.
///
/// ```
/// use signalbus_guest::{Outcome, Result, Signal, Verdict, http, plugin};
///
/// fn send(signal: &Signal) -> Result {
///     let request = http::Request::post("https://shop.example/orders").json(signal)?;
///     let response = http::send(request).or_unavailable()?;
///     match response.is_success() {
///         true => Ok(Outcome::Sent),
///         false => Ok(Outcome::reject(String::from_utf8_lossy(&response.body))),
///     }
/// }
///
/// plugin!(send);
/// # use signalbus_guest::testing;
/// # let signal = Signal::builder("OrderPlaced").build();
/// # assert_eq!(send(&signal), Ok(Outcome::Sent));
/// # testing::http_with(|_| Ok(http::Response::new(422).with_body("no such article")));
/// # assert_eq!(send(&signal), Ok(Outcome::reject("no such article")));
/// # testing::http_with(|_| Err(http::Error::Timeout));
/// # assert!(send(&signal).unwrap_err().is_outage());
/// ```
///
/// # Errors
///
/// If there is no response. A response with an error status is not an error.
pub fn send(request: Request) -> Result<Response, Error> {
    let mut answers = send_all([request], 1);
    answers.pop().unwrap_or_else(|| Err(Error::Broken("there is no response".to_owned())))
}

/// Sends requests, at most `at_most` of them concurrently, and waits for all responses. Entry `i` is the
/// response to request `i`; each request is taken from the iterator when it can be sent.
///
/// ```
/// use signalbus_guest::{BulkResult, Outcome, Signal, http, plugin};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     let requests = signals.iter().map(|signal| http::Request::get(format!("https://shop.example/{}", signal.id())));
///     let answers = http::send_all(requests, 50).into_iter();
///     Ok(answers.map(|answer| match answer {
///         Ok(response) if response.is_success() => Outcome::Sent,
///         Ok(response) => Outcome::retry(format!("shop answered {}", response.status)),
///         Err(error) => Outcome::retry(error.to_string()),
///     }).collect())
/// }
///
/// plugin!(bulk send_all);
/// # assert_eq!(send_all(&[Signal::builder("A").build()]), Ok(vec![Outcome::Sent]));
/// ```
pub fn send_all(requests: impl IntoIterator<Item = Request>, at_most: usize) -> Vec<Result<Response, Error>> {
    let mut list = List { requests: requests.into_iter(), answers: Vec::new() };
    match runs::allow() {
        Ok(()) => host::exchange(&mut list, at_most.max(1)),
        Err(refusal) => list.answers = list.requests.map(|_| Some(Err(Error::Broken(refusal.reason.clone())))).collect(),
    }
    list.answers.into_iter().map(|answer| answer.unwrap_or(Err(Error::Timeout))).collect()
}

pub(crate) type Answer = Result<Response, Error>;

/// Where requests come from, and where their answers go.
pub(crate) trait Requests {
    /// Returns the next request that may be sent now, and its number.
    fn next(&mut self) -> Option<(usize, Request)>;
    fn answered(&mut self, number: usize, answer: Answer);
}

struct List<I> {
    requests: I,
    answers: Vec<Option<Answer>>,
}

impl<I: Iterator<Item = Request>> Requests for List<I> {
    fn next(&mut self) -> Option<(usize, Request)> {
        let request = self.requests.next()?;
        self.answers.push(None);
        Some((self.answers.len() - 1, request))
    }

    fn answered(&mut self, number: usize, answer: Answer) {
        self.answers[number] = Some(answer);
    }
}
