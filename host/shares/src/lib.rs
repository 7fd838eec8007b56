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
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn now(share: &Share, units: u32) -> Option<Taken> {
        tokio::task::unconstrained(share.take(units)).now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_share_is_kept_for_each_type() {
        let pool = Pool::new(256, Measure::Units);
        let shares: Vec<Share> = (0..16).map(|n| pool.share(&format!("type {n}"))).collect();
        // Half of all is shared out: eight for each. Of the other half, one may have everything.
        let greedy: Vec<Taken> = std::iter::from_fn(|| now(&shares[0], 1)).collect();
        assert_eq!(greedy.len(), 128 + 8);
        for share in &shares[1..] {
            let taken = now(share, 8);
            assert!(taken.is_some() && now(share, 1).is_none());
            std::mem::forget(taken);
        }
        drop(greedy);
        assert!(now(&shares[1], 100).is_some());
    }

    #[tokio::test]
    async fn who_holds_the_least_comes_first() {
        let pool = Pool::new(4, Measure::Units);
        let [a, b] = [pool.share("a"), pool.share("b")];
        let mut held: Vec<Taken> = vec![now(&a, 1).unwrap(), now(&a, 1).unwrap(), now(&a, 1).unwrap(), now(&b, 1).unwrap()];
        let (mut more, mut other) = (Box::pin(a.take(1)), Box::pin(b.take(1)));
        assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        held.remove(0);
        assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_some());
    }

    /// A type that was quiet is served at once, and has saved nothing up.
    #[tokio::test]
    async fn turns_go_by_the_time_that_was_used() {
        let pool = Pool::new(1, Measure::Time);
        let [a, b] = [pool.share("a"), pool.share("b")];
        let times = |name: &str| pool.state().members[name].time;
        for _ in 0..3 {
            let turn = now(&a, 1).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            drop(turn);
        }
        let turn = now(&a, 1).unwrap();
        let (mut more, mut other) = (Box::pin(a.take(1)), Box::pin(b.take(1)));
        assert!((&mut more).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(turn);
        assert!((&mut more).now_or_never().is_none());
        assert!((&mut other).now_or_never().is_some());
        assert!(times("b") >= Duration::from_millis(10), "{:?}", times("b"));
    }

    #[tokio::test]
    async fn who_waits_no_more_takes_nothing() {
        let pool = Pool::new(1, Measure::Units);
        let share = pool.share("a");
        let taken = now(&share, 1).unwrap();
        assert!(now(&share, 1).is_none());
        drop(taken);
        assert!(now(&share, 1).is_some());
        assert_eq!(pool.state().free, 1);
    }

    /// A turn that took an hour is not paid for with an hour.
    #[tokio::test]
    async fn what_a_type_owes_has_an_end() {
        let pool = Pool::new(1, Measure::Time);
        let [a, b] = [pool.share("a"), pool.share("b")];
        drop(now(&a, 1));
        pool.state().change(&"a".into(), |member| member.time += Duration::from_secs(3600));
        let _turn = now(&b, 1).unwrap();
        assert!(now(&a, 1).is_none());
        let state = pool.state();
        assert_eq!(state.members["a"].time, state.floor + MOST_OWED);
    }

    /// However many of a type wait, another one that asks comes next.
    #[tokio::test]
    async fn those_who_wait_queue_by_type() {
        let pool = Pool::new(1, Measure::Time);
        let [a, b] = [pool.share("a"), pool.share("b")];
        let mut turn = now(&a, 1).unwrap();
        let mut crowd: Vec<_> = (0..1000).map(|_| Box::pin(tokio::task::unconstrained(a.take(1)))).collect();
        assert!(crowd.iter_mut().all(|waits| waits.now_or_never().is_none()));
        for n in 0..10 {
            let mut other = Box::pin(b.take(1));
            assert!((&mut other).now_or_never().is_none());
            // Its turn took longer than one of the other's does.
            pool.state().change(&"a".into(), |member| member.time += Duration::from_secs(60));
            drop(turn);
            turn = (&mut other).now_or_never().unwrap().unwrap();
            let more = crowd.iter_mut().filter_map(|waits| waits.now_or_never()).count();
            assert_eq!(more, 0, "after {n} turns");
            drop(turn);
            turn = crowd.remove(0).now_or_never().unwrap().unwrap();
        }
        assert_eq!(pool.used(), 1);
        drop((turn, crowd));
        assert_eq!((pool.used(), pool.state().queue.len()), (0, 0));
    }

    /// What can be divided never waits for more than the type's share.
    #[tokio::test]
    async fn a_part_is_taken_of_what_can_be_divided() {
        let pool = Pool::new(64, Measure::Units);
        let [a, b] = [pool.share("a"), pool.share("b")];
        let some = |share: &Share, least, most| {
            let taken = tokio::task::unconstrained(share.take_some(least, most)).now_or_never().flatten();
            taken.map(|taken| (taken.units(), taken))
        };
        let units = |taken: &Option<(u32, Taken)>| taken.as_ref().map(|taken| taken.0);
        let first = some(&a, 1, 100);
        let second = some(&a, 1, 100);
        // A quarter is kept for the other.
        assert_eq!([&first, &second].map(units), [Some(32), Some(16)]);
        let third = some(&a, 1, 1);
        let other = some(&b, 1, 100);
        assert_eq!([&third, &other].map(units), [None, Some(16)]);
        assert_eq!(units(&some(&b, 1, 1)), None);
        drop(first);
        assert_eq!(units(&some(&b, 20, 100)), Some(32));
    }

    /// Those who have given up, and types that are gone, leave nothing behind.
    #[tokio::test]
    async fn nothing_is_left_of_those_who_are_gone() {
        let pool = Pool::new(16, Measure::Units);
        let [a, b] = [pool.share("a"), pool.share("b")];
        let most = now(&a, 8).unwrap();
        for _ in 0..100 {
            assert!(now(&a, 8).is_none());
        }
        assert!(pool.state().members["a"].waiting.is_empty());
        drop(a);
        let kept = |pool: &Pool| {
            let state = pool.state();
            (state.kept, state.lacking)
        };
        assert_eq!(kept(&pool), (4, 4));
        drop(most);
        assert_eq!((kept(&pool), pool.used(), b.members()), ((8, 8), 0, 1));
    }
}
