//! Connects the author's function to the component's export.
//!
//! Everything that `plugin!` expands to must stay reachable through `__private`. `signal` and
//! `outcome` define the author's side.

use crate::bindings::types;
use crate::{BulkResult, Outcome, Result, Signal, bulk};
use std::sync::Arc;

/// Calls a function that sends one signal.
pub fn single(
    send: fn(&Signal) -> Result,
    signal_type: types::SignalType,
    signal: types::Signal,
) -> std::result::Result<Outcome, types::Outage> {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    log_panics();
    let signal = Signal::new(signal, &Arc::new(signal_type));
    send(&signal).or_else(|error| error.into_outcome())
}

/// Calls a function that sends many signals.
pub fn bulk(
    send_all: fn(&[Signal]) -> BulkResult,
    signal_type: types::SignalType,
    signals: Vec<types::Signal>,
) -> std::result::Result<Vec<Outcome>, types::Outage> {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    log_panics();
    let signal_type = Arc::new(signal_type);
    let signals: Vec<_> = signals.into_iter().map(|signal| Signal::new(signal, &signal_type)).collect();
    bulk::answer(send_all(&signals), signals.len())
}

/// Reports panics through the log, since there is no standard error without WASI.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn log_panics() {
    use crate::log::{self, Level};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| log::emit(Level::Error, panic.to_string(), [("", ""); 0])));
    });
}

/// Makes the crate a SignalBus plugin: `plugin!(send)`, or `plugin!(bulk send_all)`.
///
/// `send` is a `fn(&Signal) -> Result`, `send_all` a `fn(&[Signal]) -> BulkResult`. A crate contains
/// one plugin, and is built as a `cdylib` for `wasm32-wasip2`.
///
/// ```
/// use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
///
/// fn send_all(signals: &[Signal]) -> BulkResult {
///     Ok(vec![Outcome::Sent; signals.len()])
/// }
///
/// plugin!(bulk send_all);
/// # assert_eq!(send_all(&[]), Ok(Vec::new()));
/// ```
#[macro_export]
macro_rules! plugin {
    (bulk $send_all:path) => {
        const _: fn(&[$crate::Signal]) -> $crate::BulkResult = $send_all;

        const _: () = {
            use $crate::__private::bindings::bulk as world;

            struct Plugin;

            impl world::exports::signalbus::plugin::bulk_sender::Guest for Plugin {
                fn send_signalbus_messages(
                    signal_type: $crate::__private::SignalType,
                    signals: ::std::vec::Vec<$crate::__private::Row>,
                ) -> ::std::result::Result<::std::vec::Vec<$crate::Outcome>, $crate::__private::Outage> {
                    $crate::__private::bulk($send_all, signal_type, signals)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::__private::bindings::bulk::export!(Plugin with_types_in $crate::__private::bindings::bulk);
        };
    };
    ($send:path) => {
        const _: fn(&$crate::Signal) -> $crate::Result = $send;

        const _: () = {
            use $crate::__private::bindings::single as world;

            struct Plugin;

            impl world::exports::signalbus::plugin::sender::Guest for Plugin {
                fn send_signalbus_message(
                    signal_type: $crate::__private::SignalType,
                    signal: $crate::__private::Row,
                ) -> ::std::result::Result<$crate::Outcome, $crate::__private::Outage> {
                    $crate::__private::single($send, signal_type, signal)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::__private::bindings::single::export!(Plugin with_types_in $crate::__private::bindings::single);
        };
    };
}
