//! Connects the author's function to the component's export.
//!
//! Everything that `plugin!` expands to must stay reachable through `__private`. `signal` and
//! `outcome` define the author's side.

use crate::bindings::types;
use crate::{BulkResult, Error, Outcome, Result, Signal, bulk};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a call goes on to further signals. Short, because a call that crashes repeats what it has
/// sent; long beside what a call costs.
const SHARE: Duration = Duration::from_millis(1);

thread_local! {
    /// The outage that ended the last call after some of its signals: the answer to the next one.
    static OUTAGE: Cell<Option<Error>> = const { Cell::new(None) };
}

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

/// Calls a function that sends one signal, for one signal after the other. What it does not try in its
/// share of time, or behind an outage, the relay passes in again.
pub fn each(
    send: fn(&Signal) -> Result,
    signal_type: types::SignalType,
    signals: Vec<types::Signal>,
) -> std::result::Result<Vec<Outcome>, types::Outage> {
    let count = signals.len();
    if let Some(outage) = OUTAGE.take() {
        return bulk::answer(Err(outage), count);
    }
    let begun = Instant::now();
    let signals = signals_of(signal_type, signals);
    let passed_in_again = signals.first().and_then(bulk::untried).is_some();
    let (outcomes, outage) = bulk::in_turn(&signals, send, || !passed_in_again || begun.elapsed() < SHARE);
    if passed_in_again && !outcomes.is_empty() {
        OUTAGE.set(outage.clone());
    }
    bulk::answer(bulk::whole(outcomes, outage, &signals), count)
}

/// Calls a function that sends many signals.
pub fn bulk(
    send_all: fn(&[Signal]) -> BulkResult,
    signal_type: types::SignalType,
    signals: Vec<types::Signal>,
) -> std::result::Result<Vec<Outcome>, types::Outage> {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    log_panics();
    let signals = signals_of(signal_type, signals);
    bulk::answer(send_all(&signals), signals.len())
}

fn signals_of(signal_type: types::SignalType, signals: Vec<types::Signal>) -> Vec<Signal> {
    let signal_type = Arc::new(signal_type);
    signals.into_iter().map(|signal| Signal::new(signal, &signal_type)).collect()
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
/// With `send`, signals are sent one after the other, and each counts for itself: the relay's limits
/// apply as if each had a call of its own. A call goes from one signal to the next for a millisecond,
/// so that calls cost next to nothing.
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
    (@many $call:ident $send:path) => {
        const _: () = {
            use $crate::__private::bindings::bulk as world;

            struct Plugin;

            impl world::exports::signalbus::plugin::bulk_sender::Guest for Plugin {
                fn send_signalbus_messages(
                    signal_type: $crate::__private::SignalType,
                    signals: ::std::vec::Vec<$crate::__private::Row>,
                ) -> ::std::result::Result<::std::vec::Vec<$crate::Outcome>, $crate::__private::Outage> {
                    $crate::__private::$call($send, signal_type, signals)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::__private::bindings::bulk::export!(Plugin with_types_in $crate::__private::bindings::bulk);
        };
    };
    (@one $send:path) => {
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

    $crate::__private::bindings::single::export!(Plugin with_types_in $crate::__private::bindings::single);
        };
    };
    (bulk $send_all:path) => {
        const _: fn(&[$crate::Signal]) -> $crate::BulkResult = $send_all;
        $crate::plugin!(@many bulk $send_all);
    };
    ($send:path) => {
        const _: fn(&$crate::Signal) -> $crate::Result = $send;
        #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
        $crate::plugin!(@many each $send);
        // Without WASI, there is no clock to share out time by.
        #[cfg(all(target_family = "wasm", target_os = "unknown"))]
        $crate::plugin!(@one $send);
    };
}
