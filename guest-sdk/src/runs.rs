//! Calls in runs: the signals of each order key, in their order.
//!
//! A function that sends many signals gets the runs of a call as one list. What keeps the order ([`each`](crate::each),
//! [`publish_each`](crate::publish_each), [`http::send_each`](crate::http::send_each)) asks here where the runs are. What
//! knows no order is refused: then `export` calls the function with one signal of each run at a time. So an author need not
//! know of runs, and none of them can be put out of order.

use crate::{Error, Outcome, Result, Signal, bulk};
use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The call of a function with all signals of all runs.
struct Call {
    /// Where the list is, and how long.
    signals: (*const Signal, usize),
    lengths: Vec<usize>,
    /// Something has begun to send in order.
    begun: bool,
    /// Something knows no order, and has sent nothing.
    refused: bool,
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Calls a function that sends the signals of runs. Returns `None` if it knows no order, and has sent nothing.
pub(crate) fn within<T>(signals: &[Signal], lengths: &[usize], send_all: impl FnOnce() -> T) -> Option<T> {
    let call = Call { signals: place(signals), lengths: lengths.to_vec(), begun: false, refused: false };
    CALL.set(Some(call));
    let answer = send_all();
    CALL.take().filter(|call| call.refused).is_none().then_some(answer)
}

/// Returns the lengths of the runs in these signals; `None` if none of them is behind another.
///
/// # Errors
/// They are not all signals of the call: what became of the others, may matter to them.
pub(crate) fn of(signals: &[Signal]) -> Result<Option<Vec<usize>>> {
    CALL.with_borrow_mut(|call| match call {
        Some(call) if call.signals == place(signals) => {
            call.begun = true;
            Ok(Some(call.lengths.clone()))
        }
        Some(call) => call.refuse().map(|()| None),
        None => Ok(None),
    })
}

/// Asks whether something that knows no order may send.
///
/// # Errors
/// There are runs, and nothing has been sent.
pub(crate) fn allow() -> Result<()> {
    CALL.with_borrow_mut(|call| call.as_mut().map_or(Ok(()), Call::refuse))
}

/// Returns whether the present call will be repeated.
pub(crate) fn is_refused() -> bool {
    CALL.with_borrow(|call| call.as_ref().is_some_and(|call| call.refused))
}

/// Calls a function for a single signal, whatever it sends.
pub(crate) fn alone<T>(send: impl FnOnce() -> T) -> T {
    let call = CALL.take();
    let answer = send();
    CALL.set(call);
    answer
}

impl Call {
    fn refuse(&mut self) -> Result<()> {
        self.refused |= !self.begun;
        if self.refused { Err(Error::retry("it knows no order: the signals go one by one")) } else { Ok(()) }
    }
}

fn place(signals: &[Signal]) -> (*const Signal, usize) {
    (signals.as_ptr(), signals.len())
}

/// Returns the positions of each run. Without runs, each signal is one.
pub(crate) fn ranges(lengths: Option<&[usize]>, signals: usize) -> Vec<Range<usize>> {
    let Some(lengths) = lengths else { return (0..signals).map(|position| position..position + 1).collect() };
    let mut end = 0;
    let range = |length: &usize| {
        let begin = end;
        end += length;
        begin..end
    };
    lengths.iter().map(range).collect()
}

/// Whether what follows in the run may be sent.
pub(crate) fn goes_on(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Skip)
}

/// How long a call goes on to further signals of runs that are sent one by one: a stop waits for it to end.
pub(crate) const SHARE: Duration = Duration::from_secs(1);

/// Returns the time; `None` without WASI, where there is no clock.
pub(crate) fn now() -> Option<Instant> {
    (!cfg!(all(target_family = "wasm", target_os = "unknown"))).then(Instant::now)
}

/// Returns the answer for a signal that was not tried.
pub(crate) fn held(signal: &Signal) -> Outcome {
    bulk::untried(signal).unwrap_or_else(|| Outcome::retry("not tried"))
}
