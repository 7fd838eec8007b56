//! Requests to HTTP servers.
//!
//! The configuration has to grant the origin; the relay keeps the connections, follows no
//! redirect, and speaks HTTP/2 where the server does:
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
//! A `?` on an [`Error`] means *retry*, as on any other; [`Verdict`](crate::Verdict) says otherwise.

#[cfg(target_family = "wasm")]
pub(crate) mod exchange;

use crate::host;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Time for a request unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that are kept unless the request says otherwise.
const LIMIT: usize = 1 << 20;

/// A request that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In capitals, e.g. `POST`.
    pub method: String,
    /// With scheme and host.
    pub url: String,
    /// In a value, `{{secret:NAME}}` stands for a secret of the signal type: the relay puts it in
    /// on the way out, to granted origins only.
    pub headers: Vec<(String, String)>,
    /// Empty for none.
    pub body: Vec<u8>,
    /// For the whole of it, the answer's body included.
    pub timeout: Duration,
    /// Bytes of the answer's body that are kept.
    pub limit: usize,
}

impl Request {
    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: Vec::new(), timeout: TIMEOUT, limit: LIMIT }
    }

    /// A `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `PUT` request.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// One more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The body as it goes over the wire, e.g. text or bytes.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The body as JSON, and the content type that says so. A [`Signal`](crate::Signal) is a
    /// value like any other here.
    ///
    /// # Errors
    ///
    /// If the value has no JSON form, e.g. a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, serde_json::Error> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// Time for the whole of it, the answer's body included; 30 s unless it is set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many bytes of the answer's body are kept; 1 MiB unless it is set.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

/// What a server has answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// E.g. 200.
    pub status: u16,
    /// In the order they came.
    pub headers: Vec<(String, String)>,
    /// At most as many bytes as the request keeps.
    pub body: Vec<u8>,
    /// Whether the body is incomplete: longer than the limit, or cut off.
    pub truncated: bool,
}

impl Response {
    /// An empty answer, for tests.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), truncated: false }
    }

    /// The same with a header, for tests.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with a body, for tests.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The configuration does not grant the origin, what its name leads to, or a secret. The
    /// relay's log says which.
    Denied,
    /// No connection: unknown host, connection refused, untrusted certificate. Nothing was sent.
    Unreachable(String),
    /// The time limit has passed. The server may have acted all the same.
    Timeout,
    /// The connection broke. The server may have acted all the same.
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
            Self::Invalid(cause) => write!(out, "request can't be sent: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

/// Sends a request, and waits for the answer.
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
/// There is no answer. An answer with an error status is not an error.
pub fn send(request: Request) -> Result<Response, Error> {
    let mut answers = send_all([request], 1);
    answers.pop().unwrap_or_else(|| Err(Error::Broken("there is no answer".to_owned())))
}

/// Sends requests, at most `at_most` of them concurrently, and waits for all answers. Entry `i` is the
/// answer to request `i`; each request is taken from the iterator when it can be sent.
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
    host::exchange(&mut requests.into_iter(), at_most.max(1))
}
