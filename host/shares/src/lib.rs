//! Fair shares of what all signal types use together: instances of plugins, processors, sessions of the database.
//!
//! What one type has taken must not keep another from its share, however many of its workers ask, and however long they
//! hold it. A turn costs a logarithm of the number of types, whatever the number of those who wait.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Units that signal types take from and give back.
#[derive(Debug)]
pub struct Pool(Mutex<State>);

/// By what it is measured how much a type has had. Of those who wait, the type that has had the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The units that it holds, for however long. Half of all units are kept for the types that have less than their share
    /// of that half; the rest goes to whoever asks.
    Units,
    /// The time for which it has held units, which nobody holds for long.
    Time,
}

#[derive(Debug)]
struct State {
    measure: Measure,
    capacity: u32,
    free: u32,
    members: HashMap<Arc<str>, Member>,
    /// The members that wait.
    queue: BTreeMap<Rank, Arc<str>>,
    /// What each member may have of the half that is kept.
    kept: u32,
    /// What all members together lack of that.
    lacking: u32,
    serial: u64,
    /// What the member had had that came last.
    floor: Duration,
}

/// A turn that took long must not keep a type for long from its next ones: it has claims to renew.
const MOST_OWED: Duration = Duration::from_millis(250);

/// Who comes first: who has had the least, then who asked first.
type Rank = (Duration, u32, u64);

#[derive(Debug, Default)]
struct Member {
    shares: usize,
    used: u32,
    time: Duration,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    least: u32,
    most: u32,
    serial: u64,
    since: Instant,
    ready: oneshot::Sender<Taken>,
}

/// A signal type's share of a pool.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    name: Arc<str>,
}

/// Units that were taken, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    pool: Option<Arc<Pool>>,
    name: Arc<str>,
    units: u32,
    since: Instant,
}

/// Somebody who waits, until it is dropped.
struct Place<'a> {
    share: &'a Share,
    serial: u64,
}

impl Pool {
    #[must_use]
    pub fn new(capacity: u32, measure: Measure) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            measure,
            capacity,
            free: capacity,
            members: HashMap::new(),
            queue: BTreeMap::new(),
            kept: 0,
            lacking: 0,
            serial: 0,
            floor: Duration::ZERO,
        })))
    }

    /// Returns the share of a signal type, which counts as a member of the pool as long as it has one.
    pub fn share(self: &Arc<Self>, name: &str) -> Share {
        let name: Arc<str> = name.into();
        let mut state = self.state();
        let members = state.members.len();
        state.members.entry(name.clone()).or_default().shares += 1;
        if state.members.len() != members {
            state.divide();
        }
        Share { pool: self.clone(), name }
    }

    /// Returns how many units are in use.
    pub fn used(&self) -> u32 {
        let state = self.state();
        state.capacity - state.free
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives to those who wait what there is for them.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while let Some((name, units, ready)) = state.next() {
            let taken = Taken { pool: Some(self.clone()), name, units, since: Instant::now() };
            if let Err(mut taken) = ready.send(taken) {
                // Nobody waits for it any more.
                taken.pool = None;
                state.give_back(&taken.name, taken.units, Duration::ZERO);
            }
        }
    }
}

impl Member {
    fn rank(&self, measure: Measure) -> Option<Rank> {
        let serial = self.waiting.front()?.serial;
        Some(match measure {
            Measure::Units => (Duration::ZERO, self.used, serial),
            Measure::Time => (self.time, 0, serial),
        })
    }
}

impl State {
    /// Divides what is kept among the members.
    fn divide(&mut self) {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1);
        self.kept = if self.measure == Measure::Units { self.capacity / 2 / members } else { 0 };
        self.lacking = self.members.values().map(|member| self.kept.saturating_sub(member.used)).sum();
    }

    /// Changes a member, and with it its place among those that wait.
    fn change<T>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let member = self.members.get_mut(name)?;
        member.rank(self.measure).and_then(|rank| self.queue.remove(&rank));
        self.lacking -= self.kept.saturating_sub(member.used);
        let changed = change(member);
        self.lacking += self.kept.saturating_sub(member.used);
        if let Some(rank) = member.rank(self.measure) {
            self.queue.insert(rank, name.clone());
        }
        Some(changed)
    }

    /// Takes for whoever comes next, if there is enough, and returns who that is.
    fn next(&mut self) -> Option<(Arc<str>, u32, oneshot::Sender<Taken>)> {
        let mut open = self.free > 0;
        let able = self.queue.values().find_map(|name| {
            let member = self.members.get(name)?;
            let first = member.waiting.front()?;
            let own = self.kept.saturating_sub(member.used);
            let spare = if open { self.free.saturating_sub(self.lacking - own) } else { 0 };
            let room = own.max(spare).min(self.free);
            // Of what can be divided, its share is enough.
            let fits = room >= first.least.max(first.most.min(self.kept));
            // Whoever asks for much must not wait for ever behind those who ask for little.
            open &= fits;
            fits.then(|| (name.clone(), first.most.min(room)))
        });
        let (name, units) = able?;
        let served = self.change(&name, |member| {
            let first = member.waiting.pop_front()?;
            member.used += units;
            Some((first.ready, member.time))
        });
        let (ready, time) = served??;
        self.free -= units;
        self.floor = self.floor.max(time);
        Some((name, units, ready))
    }

    fn give_back(&mut self, name: &Arc<str>, units: u32, time: Duration) {
        self.free += units;
        self.change(name, |member| {
            member.used -= units;
            member.time += time;
        });
        self.forget(name);
    }

    /// Forgets a member that has no share any more, and nothing to give back.
    fn forget(&mut self, name: &str) {
        if self.members.get(name).is_some_and(|member| member.shares == 0 && member.used == 0) {
            self.members.remove(name);
            self.divide();
        }
    }
}

impl Share {
    /// Waits for this many units.
    pub async fn take(&self, units: u32) -> Option<Taken> {
        self.take_some(units, units).await
    }

    /// Waits for the least number of units, or for the type's share if that is more; takes more up to `most` if there are
    /// some for whoever asks.
    pub async fn take_some(&self, least: u32, most: u32) -> Option<Taken> {
        let (ready, taken) = oneshot::channel();
        let _place = self.queue(least, most, ready);
        taken.await.ok()
    }

    fn queue(&self, least: u32, most: u32, ready: oneshot::Sender<Taken>) -> Place<'_> {
        let mut state = self.pool.state();
        state.serial += 1;
        let (serial, floor) = (state.serial, state.floor);
        // More might never be free together.
        let [least, most] = [least, most].map(|units| units.min((state.capacity / 2).max(1)));
        state.change(&self.name, |member| {
            // What was not asked for is not saved up, and what is owed has an end.
            member.time = member.time.clamp(floor, floor + MOST_OWED);
            member.waiting.push_back(Waiting { least, most, serial, since: Instant::now(), ready });
        });
        self.pool.serve(&mut state);
        Place { share: self, serial }
    }

    /// Returns how long the type has been waiting for units.
    pub fn waiting(&self) -> Duration {
        let state = self.pool.state();
        let first = state.members.get(&self.name).and_then(|member| member.waiting.front());
        first.map_or(Duration::ZERO, |first| first.since.elapsed())
    }

    /// Returns the number of types that share the pool.
    pub fn members(&self) -> u32 {
        u32::try_from(self.pool.state().members.len()).unwrap_or(u32::MAX)
    }
}

impl Taken {
    /// Returns how many units they are.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.units
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Share { pool, name } = self.share;
        let mut state = pool.state();
        let gone = state.change(name, |member| {
            let place = member.waiting.binary_search_by_key(&self.serial, |waiting| waiting.serial).ok()?;
            member.waiting.remove(place)
        });
        // It may have stood in the way of others.
        if gone.flatten().is_some() {
            pool.serve(&mut state);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.change(&self.name, |member| member.shares -= 1);
        state.forget(&self.name);
        self.pool.serve(&mut state);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let mut state = pool.state();
        state.give_back(&self.name, self.units, self.since.elapsed());
        pool.serve(&mut state);
    }
}

#[cfg(test)]
mod tests;
