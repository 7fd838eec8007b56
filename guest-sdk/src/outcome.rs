//! The outcome of a signal, and how `?` turns errors into outcomes.
//!
//! An error must never delete a signal unless the author says so. `bulk` applies this to many signals.

use crate::bindings::types;
use crate::{Outcome, log};
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The result of a function that sends one signal: an [`Outcome`], or an [`Error`], usually by `?`.
pub type Result<T = Outcome> = std::result::Result<T, Error>;

impl Outcome {
    /// The signal was not accepted, but another attempt may succeed; the relay's backoff decides when.
    ///
    /// ```
    /// use signalbus_guest::{Outcome, Signal};
    /// use std::time::Duration;
    ///
    /// fn outcome(signal: &Signal, status: u16) -> Outcome {
    ///     match status {
    ///         200 => Outcome::Sent,
    ///         409 => Outcome::Skip, // it already exists
    ///         429 => Outcome::retry_after(Duration::from_secs(60), "server is busy"),
    ///         500 if signal.attempt() < 5 => Outcome::retry("server failed"),
    ///         _ => Outcome::reject(format!("server answered {status}")),
    ///     }
    /// }
    /// # let signal = Signal::builder("OrderPlaced").build();
    /// # assert_eq!(outcome(&signal, 500), Outcome::retry("server failed"));
    /// # assert_eq!(outcome(&signal, 400), Outcome::reject("server answered 400"));
    /// ```
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(types::Retry { reason: reason.into(), after_ms: None })
    }

    /// The signal was not accepted, and another attempt is useless before `after` has passed.
    pub fn retry_after(after: Duration, reason: impl Into<String>) -> Self {
        Self::Retry(types::Retry { reason: reason.into(), after_ms: Some(millis(after)) })
    }

    /// The signal can never be sent: it becomes a dead letter.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl From<Outcome> for types::RunOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Sent => Self::Sent,
            Outcome::Skip => Self::Skip,
            Outcome::Retry(retry) => Self::Retry(retry),
            Outcome::Reject(reason) => Self::Reject(reason),
        }
    }
}

/// A failure that decides what happens to the signal.
///
/// `?` converts any error into one that means *retry*; [`Verdict`] gives it another meaning. This type
/// does not implement `std::error::Error`, so that every type that does can be converted into it.
///
/// ```
/// use signalbus_guest::{Error, Outcome, Result, Signal};
/// use std::time::Duration;
///
/// fn send(signal: &Signal) -> Result {
///     let address: &str = signal.get("address")?; // retried later, as after every `?`
///     let (host, port) = address.split_once(':').ok_or("address has no port")?;
///     let _port: u16 = port.parse()?;
///     if host == "tomorrow.example" {
///         return Err(Error::unavailable("host is away").after(Duration::from_secs(3600)));
///     }
///     Ok(Outcome::Sent)
/// }
/// # let send = |address: &str| send(&Signal::builder("Ping").column("address", address).build());
/// # assert_eq!(send("localhost"), Err(Error::retry("address has no port")));
/// # assert_eq!(send("localhost:x"), Err(Error::retry("invalid digit found in string")));
/// # assert!(send("tomorrow.example:1").unwrap_err().is_outage());
/// # assert_eq!(send("localhost:1"), Ok(Outcome::Sent));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(crate) meaning: Meaning,
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Retry(Option<Duration>),
    Skip,
    Reject,
    Unavailable(Option<Duration>),
    Misconfigured,
}

impl Error {
    fn new(meaning: Meaning, reason: impl Into<String>) -> Self {
        Self { meaning, reason: reason.into() }
    }

    /// Creates an error after which another attempt may succeed.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::new(Meaning::Retry(None), reason)
    }

    /// Creates an error for a signal that can never be sent.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::new(Meaning::Reject, reason)
    }

    /// Creates an outage: the bus cannot be reached, the signal type pauses, and no attempt is charged.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(Meaning::Unavailable(None), reason)
    }

    /// Creates an outage: an operator must act, the signal type is parked, and no attempt is charged.
    pub fn misconfigured(reason: impl Into<String>) -> Self {
        Self::new(Meaning::Misconfigured, reason)
    }

    /// Sets the time before which another attempt is useless. Has no effect if no attempt follows.
    pub fn after(mut self, after: Duration) -> Self {
        if let Meaning::Retry(kept) | Meaning::Unavailable(kept) = &mut self.meaning {
            *kept = Some(after);
        }
        self
    }

    /// Returns what went wrong.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns whether the error applies to the whole call rather than to one signal.
    pub fn is_outage(&self) -> bool {
        matches!(self.meaning, Meaning::Unavailable(_) | Meaning::Misconfigured)
    }

    /// Converts the error into the outcome of its signal.
    ///
    /// # Errors
    /// Returns the outage if the error is one.
    pub(crate) fn into_outcome(self) -> std::result::Result<Outcome, types::Outage> {
        let Self { meaning, reason } = self;
        let retry = |after: Option<Duration>| types::Retry { reason: reason.clone(), after_ms: after.map(millis) };
        match meaning {
            Meaning::Retry(after) => Ok(Outcome::Retry(retry(after))),
            Meaning::Skip => {
                log::emit(log::Level::Debug, "skipped", [("reason", reason)]);
                Ok(Outcome::Skip)
            }
            Meaning::Reject => Ok(Outcome::Reject(reason)),
            Meaning::Unavailable(after) => Err(types::Outage::Unavailable(retry(after))),
            Meaning::Misconfigured => Err(types::Outage::Misconfigured(reason)),
        }
    }

    pub(crate) fn of_outage(outage: types::Outage) -> Self {
        match outage {
            types::Outage::Unavailable(types::Retry { reason, after_ms }) => {
                Self::new(Meaning::Unavailable(after_ms.map(Duration::from_millis)), reason)
            }
            types::Outage::Misconfigured(reason) => Self::misconfigured(reason),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

/// Any error converted by `?` means *retry*.
impl<E: Into<Box<dyn StdError>>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::retry(with_causes(error))
    }
}

/// Joins an error's message with those of its causes, each once.
fn with_causes(error: impl Into<Box<dyn StdError>>) -> String {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

/// Gives an error a meaning other than *retry*, to be used with `?`.
///
/// ```
/// use signalbus_guest::{Outcome, Result, Signal, Verdict};
///
/// fn send(signal: &Signal) -> Result {
///     let email: Option<String> = signal.get("email").or_misconfigured()?;
///     let email = email.ok_or("customer has no address").or_skip()?;
///     let (_name, _domain) = email.split_once('@').ok_or("address has no \"@\"").or_reject()?;
///     Ok(Outcome::Sent)
/// }
/// # let signal = Signal::builder("Welcome").column("email", "nobody").build();
/// # assert_eq!(send(&signal).unwrap_err(), signalbus_guest::Error::reject("address has no \"@\""));
/// ```
pub trait Verdict<T> {
    /// Another attempt is useless before `after` has passed.
    fn or_retry_after(self, after: Duration) -> Result<T>;
    /// The signal can never be sent: it becomes a dead letter.
    fn or_reject(self) -> Result<T>;
    /// There is nothing to send: the row is deleted.
    fn or_skip(self) -> Result<T>;
    /// The bus cannot be reached: the signal type pauses, and no attempt is charged.
    fn or_unavailable(self) -> Result<T>;
    /// An operator must act: the signal type is parked, and no attempt is charged.
    fn or_misconfigured(self) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError>>> Verdict<T> for std::result::Result<T, E> {
    fn or_retry_after(self, after: Duration) -> Result<T> {
        self.map_err(|error| Error::new(Meaning::Retry(Some(after)), with_causes(error)))
    }

    fn or_reject(self) -> Result<T> {
        self.map_err(|error| Error::reject(with_causes(error)))
    }

    fn or_skip(self) -> Result<T> {
        self.map_err(|error| Error::new(Meaning::Skip, with_causes(error)))
    }

    fn or_unavailable(self) -> Result<T> {
        self.map_err(|error| Error::unavailable(with_causes(error)))
    }

    fn or_misconfigured(self) -> Result<T> {
        self.map_err(|error| Error::misconfigured(with_causes(error)))
    }
}
