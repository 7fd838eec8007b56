//! How much is published at a time: what the bus confirms in half of the time that a call has.
//!
//! A narrow network, or a quota, must not make a whole batch time out again and again. `instrumented` publishes a call in
//! such parts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Failure, Receipt, Run};
use signalbus_core::message::Message;
use signalbus_core::signal::Outcome;

/// The pace of a connection, which all its calls share.
pub(super) struct Pace {
    patience: Duration,
    state: Mutex<State>,
}

struct State {
    /// How many bytes are under way, those of all calls together.
    room: usize,
    /// How many calls share it.
    calls: usize,
    /// How many full parts in a row were confirmed soon.
    soon: u32,
}

/// A call, until it is dropped.
pub(super) struct Call<'a>(&'a Pace);

impl Pace {
    /// Takes a second over a slow line.
    const FIRST: usize = 64 << 10;
    /// Not less is published together, whatever a bus that hangs seems to take.
    const LEAST: usize = 4 << 10;
    /// A quota makes itself felt only after what exceeds it: one part that was confirmed soon shows little.
    const SOON: u32 = 2;

    /// `patience` is the time limit of a call.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, state: Mutex::new(State { room: Self::FIRST, calls: 0, soon: 0 }) }
    }

    /// Begins a call.
    pub(super) fn call(&self) -> Call<'_> {
        self.state().calls += 1;
        Call(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// Returns the messages that are to be published together: at least one, and at most so many of a run, from its first
    /// on. The runs share the room evenly.
    pub(super) fn parts<'a>(&self, runs: &[Run<'a>], most: usize) -> Vec<Run<'a>> {
        let mut room = {
            let state = self.0.state();
            state.room / state.calls
        };
        let (mut parts, mut is_empty) = (vec![0; runs.len()], true);
        let longest = runs.iter().map(|run| run.len()).max().unwrap_or_default();
        'room: for place in 0..longest.min(most) {
            for (part, run) in parts.iter_mut().zip(runs) {
                let Some(message) = run.get(place) else { continue };
                let left = room.checked_sub(size(message));
                if left.is_none() && !is_empty {
                    break 'room;
                }
                room = left.unwrap_or_default();
                (*part, is_empty) = (*part + 1, false);
            }
        }
        runs.iter().zip(parts).map(|(run, part)| &run[..part]).collect()
    }

    /// Learns from a part of a call, and the time that it took.
    pub(super) fn learn(&self, parts: &[Run<'_>], receipts: &[Vec<Receipt>], time: Duration) {
        let (half, mut state) = (self.0.patience / 2, self.0.state());
        let all = parts.iter().zip(receipts).flat_map(|(part, receipts)| part.iter().zip(receipts));
        let tried = all.filter(|(_, receipt)| **receipt != Ok(Outcome::Held));
        let sizes = tried.map(|(message, receipt)| (size(message).saturating_mul(state.calls), receipt));
        let published: usize = sizes.clone().map(|(size, _)| size).sum();
        let missing = receipts.iter().flatten().filter_map(|receipt| receipt.as_ref().err());
        if missing.clone().next().is_none() {
            if time > half {
                let share = half.as_secs_f64() / time.as_secs_f64();
                state.limit(scaled(published, share));
            } else if time < half / 2 && published.saturating_mul(2) > state.room {
                state.grow();
            }
        } else if missing.clone().all(|failure| matches!(failure, Failure::Outage(_))) {
            // What is missing may be under way: what comes next goes behind it.
            let confirmed: usize = sizes.filter(|(_, receipt)| receipt.is_ok()).map(|(size, _)| size).sum();
            state.limit((confirmed / 2).max(published / 4));
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.state().calls -= 1;
    }
}

impl State {
    fn limit(&mut self, room: usize) {
        (self.room, self.soon) = (self.room.min(room.max(Pace::LEAST)), 0);
    }

    fn grow(&mut self) {
        self.soon += 1;
        if self.soon >= Pace::SOON {
            (self.room, self.soon) = (self.room.saturating_mul(2), 0);
        }
    }
}

/// Returns about how many bytes a message takes on its way.
fn size(message: &Message) -> usize {
    const FIXED: usize = 128;
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len());
    FIXED + message.destination.len() + message.key.as_ref().map_or(0, String::len) + headers.sum::<usize>() + message.body.len()
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an estimate")]
fn scaled(size: usize, share: f64) -> usize {
    (size as f64 * share) as usize
}

#[cfg(test)]
mod tests {
    use super::super::{broken, outage};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Publishes messages of about 1,000 bytes through a bus that takes so many a second, and returns how many went
    /// together each time.
    fn parts(pace: &Pace, rate: f64, count: usize) -> Vec<usize> {
        let messages = vec![Message { body: vec![0; 1000 - 128], ..Message::default() }; 10_000];
        let call = pace.call();
        let one = || {
            let part = call.parts(&[&messages], usize::MAX)[0].len();
            let time = Duration::from_secs_f64(f64::from(u32::try_from(part).unwrap()) / rate);
            let confirmed = if time > PATIENCE { scaled(part, 10.0 / time.as_secs_f64()) } else { part };
            let receipts: Vec<Receipt> =
                (0..part).map(|n| if n < confirmed { Ok(Outcome::Sent) } else { Err(outage("late")) }).collect();
            call.learn(&[&messages[..part]], &[receipts], time.min(PATIENCE));
            part
        };
        std::iter::repeat_with(one).take(count).collect()
    }

    #[test]
    fn a_part_is_what_the_bus_confirms_in_half_of_the_time() {
        let pace = Pace::new(PATIENCE);
        assert_eq!(parts(&pace, 1e9, 20)[15..], [8388, 10_000, 10_000, 10_000, 10_000]);
        // A tenth of a call's time is the worst that follows a line which becomes slow.
        let slow = parts(&pace, 100.0, 20);
        assert!(slow[1] <= 2500 && slow[4..].iter().all(|part| (240..=500).contains(part)), "{slow:?}");
        assert_eq!(parts(&pace, 1e9, 20).last(), Some(&10_000));
    }

    /// How many of the messages of each run go together.
    fn lengths(call: &Call<'_>, runs: &[Run<'_>], most: usize) -> Vec<usize> {
        call.parts(runs, most).iter().map(|part| part.len()).collect()
    }

    #[test]
    fn a_part_has_at_least_one_message() {
        let pace = Pace::new(PATIENCE);
        let (pace, calls) = (&pace, [pace.call(), pace.call()]);
        let large = vec![Message { body: vec![0; 1 << 20], ..Message::default() }; 2];
        assert_eq!(lengths(&calls[0], &[&[], &large, &large], usize::MAX), [0, 1, 0]);
        assert_eq!(lengths(&calls[1], &[&[]], usize::MAX), [0]);
        for _ in 0..20 {
            calls[0].learn(&[&large[..1]], &[vec![Err(outage("late"))]], PATIENCE);
        }
        assert_eq!(lengths(&calls[1], &[&large], usize::MAX), [1]);
        // What is under way is divided among the calls.
        let small = vec![Message::default(); 1000];
        assert_eq!(lengths(&calls[0], &[&small], usize::MAX), [256]);
        drop(calls);
        assert_eq!(lengths(&pace.call(), &[&small], usize::MAX), [512]);
    }

    #[test]
    fn runs_share_the_room() {
        let pace = Pace::new(PATIENCE);
        let (call, small) = (pace.call(), vec![Message::default(); 1000]);
        assert_eq!(lengths(&call, &[&small, &small[..12], &small], usize::MAX), [250, 12, 250]);
        assert_eq!(lengths(&call, &[&small, &small[..12], &small], 20), [20, 12, 20]);
    }

    /// It says nothing about how much the bus takes.
    #[test]
    fn a_broken_connection_does_not_slow_it_down() {
        let pace = Pace::new(PATIENCE);
        let messages = vec![Message::default(); 100];
        let call = pace.call();
        call.learn(&[&messages], &[vec![Err(broken("reset")); 100]], Duration::ZERO);
        assert_eq!(lengths(&call, &[&messages], usize::MAX), [100]);
    }

    /// What was held has taken no time.
    #[test]
    fn what_was_not_tried_does_not_count() {
        let pace = Pace::new(PATIENCE);
        let (call, messages) = (pace.call(), vec![Message::default(); 1000]);
        let mut receipts = vec![Ok(Outcome::Sent); 40];
        receipts.resize(1000, Ok(Outcome::Held));
        call.learn(&[&messages], &[receipts], PATIENCE);
        assert_eq!(lengths(&call, &[&messages], usize::MAX), [Pace::LEAST / 128]);
    }
}
