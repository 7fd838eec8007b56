//! Structured log records; the relay adds plugin, version, signal type and batch.
//!
//! Keep the message constant, and put variable parts into fields:
//!
//! ```
//! use signalbus_guest::log;
//!
//! log::info!("order published", order = 7, total = "12.50");
//! log::warn!("bus is slow");
//! ```

use crate::{host, runs};
use serde::de::{Deserialize, Deserializer, Error as _};

#[doc(inline)]
pub use crate::bindings::single::signalbus::plugin::log::Level;
#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __trace as trace, __warn as warn};

/// Reads a level from its lower-case name, e.g. as a setting.
impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NAMES: &[&str] = &["trace", "debug", "info", "warn", "error"];
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            other => Err(D::Error::unknown_variant(other, NAMES)),
        }
    }
}

/// Returns whether the relay keeps records of this level.
pub fn enabled(level: Level) -> bool {
    // What a call says that will be repeated, it says again.
    !runs::is_refused() && host::log_enabled(level)
}

/// Emits a record with fields whose names are known only at run time.
pub fn emit<K, V>(level: Level, message: impl AsRef<str>, fields: impl IntoIterator<Item = (K, V)>)
where
    K: Into<String>,
    V: Into<String>,
{
    if enabled(level) {
        let fields: Vec<_> = fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        host::log_emit(level, message.as_ref(), &fields);
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    ($level:ident, $message:expr $(, $field:ident = $value:expr)* $(,)?) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            let fields: &[(&str, ::std::string::String)] =
                &[$((stringify!($field), ::std::string::ToString::to_string(&$value))),*];
            $crate::log::emit($crate::log::Level::$level, $message, fields.iter().cloned());
        }
    };
}

/// Logs the finest detail.
///
/// Takes the message, then fields as `name = value`, whose values implement `Display`; they are
/// evaluated only if the relay keeps the level.
#[doc(hidden)]
#[macro_export]
macro_rules! __trace {
    ($($arguments:tt)*) => { $crate::__record!(Trace, $($arguments)*) };
}

/// Logs a detail that helps with debugging.
///
/// Takes the message, then fields as `name = value`, whose values implement `Display`; they are
/// evaluated only if the relay keeps the level.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($arguments:tt)*) => { $crate::__record!(Debug, $($arguments)*) };
}

/// Logs an event that operators should know of.
///
/// Takes the message, then fields as `name = value`, whose values implement `Display`; they are
/// evaluated only if the relay keeps the level.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($arguments:tt)*) => { $crate::__record!(Info, $($arguments)*) };
}

/// Logs a condition that operators should look at.
///
/// Takes the message, then fields as `name = value`, whose values implement `Display`; they are
/// evaluated only if the relay keeps the level.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($arguments:tt)*) => { $crate::__record!(Warn, $($arguments)*) };
}

/// Logs a failure.
///
/// Takes the message, then fields as `name = value`, whose values implement `Display`; they are
/// evaluated only if the relay keeps the level.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($arguments:tt)*) => { $crate::__record!(Error, $($arguments)*) };
}
