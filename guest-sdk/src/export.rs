//! Connects the author's function to the component's export.
//!
//! Everything that `plugin!` expands to must stay reachable through `__private`. `signal` and
//! `outcome` define the author's side.

use crate::bindings::types::{self, RunOutcome};
use crate::{BulkResult, Error, Outcome, Result, Signal, bulk, runs};
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
    bulk::answer(in_share(send, &signals_of(signal_type, signals), None), count)
}

/// The same for signals in runs: what is behind a failure is not tried.
pub fn each_run(
    send: fn(&Signal) -> Result,
    signal_type: types::SignalType,
    runs: Vec<Vec<types::Signal>>,
) -> std::result::Result<Vec<Vec<RunOutcome>>, types::Outage> {
    if let Some(outage) = OUTAGE.take() {
        return bulk::answer(Err(outage), 0).map(|_| Vec::new());
    }
    let (signals, lengths) = listed(signal_type, runs);
    let answer = bulk::answer(in_share(send, &signals, Some(&lengths)), signals.len())?;
    Ok(in_runs(answer, &signals, &lengths))
}

fn in_share(send: fn(&Signal) -> Result, signals: &[Signal], lengths: Option<&[usize]>) -> BulkResult {
    let begun = Instant::now();
    let passed_in_again = signals.first().and_then(bulk::untried).is_some();
    let (outcomes, outage) = bulk::in_turn(signals, lengths, send, || !passed_in_again || begun.elapsed() < SHARE);
    if passed_in_again && outcomes.iter().any(Option::is_some) {
        OUTAGE.set(outage.clone());
    }
    bulk::whole(outcomes, outage, signals)
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

/// The same for signals in runs. The function gets them as one list, or, if it knows no order, one of each run at a time.
pub fn bulk_runs(
    send_all: fn(&[Signal]) -> BulkResult,
    signal_type: types::SignalType,
    runs: Vec<Vec<types::Signal>>,
) -> std::result::Result<Vec<Vec<RunOutcome>>, types::Outage> {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    log_panics();
    let (signals, lengths) = listed(signal_type, runs);
    send_runs(send_all, &signals, &lengths)
}

pub(crate) fn send_runs(
    send_all: fn(&[Signal]) -> BulkResult,
    signals: &[Signal],
    lengths: &[usize],
) -> std::result::Result<Vec<Vec<RunOutcome>>, types::Outage> {
    let answer = match lengths.iter().all(|length| *length == 1) {
        true => Some(send_all(signals)),
        false => runs::within(signals, lengths, || send_all(signals)),
    };
    let answer = match answer {
        Some(answer) => bulk::answer(answer, signals.len())?,
        None => in_rounds(send_all, signals, lengths)?,
    };
    Ok(in_runs(answer, signals, lengths))
}

/// Sends the first signal of each run, then the next ones of those that go on, for a while.
fn in_rounds(
    send_all: fn(&[Signal]) -> BulkResult,
    signals: &[Signal],
    lengths: &[usize],
) -> std::result::Result<Vec<Outcome>, types::Outage> {
    let mut outcomes: Vec<Outcome> = signals.iter().map(runs::held).collect();
    let mut ranges = runs::ranges(Some(lengths), signals.len());
    let started = runs::now();
    let has_time = || started.is_none_or(|started| started.elapsed() < runs::SHARE);
    let mut begun = false;
    while !(ranges.is_empty() || begun && !has_time()) {
        let heads: Vec<Signal> = ranges.iter().map(|range| signals[range.start].clone()).collect();
        let answer = match bulk::answer(send_all(&heads), heads.len()) {
            Ok(answer) if answer.len() == heads.len() => answer,
            Ok(answer) => vec![Outcome::retry(format!("{} outcomes for {} signals", answer.len(), heads.len())); heads.len()],
            Err(_) if begun => break,
            Err(outage) => return Err(outage),
        };
        begun = true;
        let mut answer = answer.into_iter();
        ranges.retain_mut(|range| {
            let Some(outcome) = answer.next() else { return false };
            let goes_on = runs::goes_on(&outcome);
            outcomes[range.start] = outcome;
            range.start += 1;
            goes_on && range.start < range.end
        });
    }
    Ok(outcomes)
}

fn listed(signal_type: types::SignalType, runs: Vec<Vec<types::Signal>>) -> (Vec<Signal>, Vec<usize>) {
    let lengths = runs.iter().map(Vec::len).collect();
    (signals_of(signal_type, runs.into_iter().flatten().collect()), lengths)
}

/// Divides an answer among the runs. If it has the wrong length, so have they.
fn in_runs(answer: Vec<Outcome>, signals: &[Signal], lengths: &[usize]) -> Vec<Vec<RunOutcome>> {
    let mut outcomes = answer.into_iter();
    if outcomes.len() != signals.len() {
        return vec![outcomes.map(RunOutcome::from).collect()];
    }
    let mut signals = signals.iter();
    let outcome = |(outcome, signal): (Outcome, &Signal)| match outcome {
        Outcome::Retry(_) if outcome == runs::held(signal) => RunOutcome::Held,
        outcome => outcome.into(),
    };
    lengths.iter().map(|&length| outcomes.by_ref().zip(signals.by_ref()).take(length).map(outcome).collect()).collect()
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
    (@many $call:ident $call_runs:ident $send:path) => {
        const _: () = {
            use $crate::__private::bindings::many as world;

            struct Plugin;

            impl world::exports::signalbus::plugin::bulk_sender::Guest for Plugin {
                fn send_signalbus_messages(
                    signal_type: $crate::__private::SignalType,
                    signals: ::std::vec::Vec<$crate::__private::Row>,
                ) -> ::std::result::Result<::std::vec::Vec<$crate::Outcome>, $crate::__private::Outage> {
                    $crate::__private::$call($send, signal_type, signals)
                }
            }

            impl world::exports::signalbus::plugin::ordered_sender::Guest for Plugin {
                fn send_signalbus_runs(
                    signal_type: $crate::__private::SignalType,
                    runs: ::std::vec::Vec<::std::vec::Vec<$crate::__private::Row>>,
                ) -> ::std::result::Result<::std::vec::Vec<::std::vec::Vec<$crate::__private::RunOutcome>>, $crate::__private::Outage>
                {
                    $crate::__private::$call_runs($send, signal_type, runs)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::__private::bindings::many::export!(Plugin with_types_in $crate::__private::bindings::many);
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
        $crate::plugin!(@many bulk bulk_runs $send_all);
    };
    ($send:path) => {
        const _: fn(&$crate::Signal) -> $crate::Result = $send;
        #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
        $crate::plugin!(@many each each_run $send);
        // Without WASI, there is no clock to share out time by.
        #[cfg(all(target_family = "wasm", target_os = "unknown"))]
        $crate::plugin!(@one $send);
    };
}
