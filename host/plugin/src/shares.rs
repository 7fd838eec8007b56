//! Fair shares of what the plugins of all signal types use together: room for instances, and processors.
//!
//! What one type has taken must not keep another from its share, however long it holds it. `engine` has the pools;
//! `call` takes from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Units that signal types take from and give back.
///
/// Half of them are kept for the types that have less than their share of that half; the rest goes to whoever asks. Of
/// those who wait, the type that has had the least comes first.
#[derive(Debug)]
pub(super) struct Pool {
    measure: Measure,
    state: Mutex<State>,
}

/// By what it is measured how much a type has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// The units that it holds.
    Units,
    /// The time for which it has held units.
    Time,
}

#[derive(Debug)]
struct State {
    capacity: u32,
    free: u32,
    members: HashMap<Arc<str>, Member>,
    waiting: Vec<Waiting>,
    serial: u64,
    /// What the type had had that came last.
    floor: Duration,
}

#[derive(Debug, Default)]
struct Member {
    shares: usize,
    used: u32,
    time: Duration,
}

#[derive(Debug)]
struct Waiting {
    name: Arc<str>,
    units: u32,
    serial: u64,
    since: Instant,
    ready: oneshot::Sender<Taken>,
}

/// A signal type's share of a pool.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<Pool>,
    name: Arc<str>,
}

/// Units that were taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    pool: Option<Arc<Pool>>,
    name: Arc<str>,
    units: u32,
    since: Instant,
}

impl Pool {
    pub(super) fn new(capacity: u32, measure: Measure) -> Arc<Self> {
        let (members, waiting) = (HashMap::new(), Vec::new());
        let state = State { capacity, free: capacity, members, waiting, serial: 0, floor: Duration::ZERO };
        Arc::new(Self { measure, state: Mutex::new(state) })
    }

    /// Returns the share of a signal type, which counts as a member of the pool as long as it has one.
    pub(super) fn share(self: &Arc<Self>, name: &str) -> Share {
        let name: Arc<str> = name.into();
        self.state().members.entry(name.clone()).or_default().shares += 1;
        Share { pool: self.clone(), name }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives to those who wait what there is for them.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while let Some(n) = state.next(self.measure) {
            let Waiting { name, units, ready, .. } = state.waiting.remove(n);
            state.take(&name, units, self.measure);
            let taken = Taken { pool: Some(self.clone()), name, units, since: Instant::now() };
            if let Err(mut taken) = ready.send(taken) {
                // Nobody waits for it any more.
                taken.pool = None;
                state.give_back(&taken.name, taken.units, Duration::ZERO);
            }
        }
    }
}

impl State {
    /// What each type may have of the half that is kept for those with little.
    fn kept(&self) -> u32 {
        self.capacity / 2 / u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1)
    }

    fn rank(&self, waiting: &Waiting, measure: Measure) -> (Duration, u32, u64) {
        let member = self.members.get(&waiting.name);
        let (time, used) = member.map_or((Duration::ZERO, 0), |member| (member.time, member.used));
        match measure {
            // What was not asked for is not saved up.
            Measure::Time => (time.max(self.floor), 0, waiting.serial),
            Measure::Units => (Duration::ZERO, used, waiting.serial),
        }
    }

    /// Returns who is served next, if there is enough.
    fn next(&self, measure: Measure) -> Option<usize> {
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        order.sort_by_key(|&n| self.rank(&self.waiting[n], measure));
        let kept = self.kept();
        let mut open = true;
        order.into_iter().find(|&n| {
            let Waiting { name, units, .. } = &self.waiting[n];
            let used = |member: Option<&Member>| member.map_or(0, |member| member.used);
            let own = used(self.members.get(name)) + units <= kept;
            let lacking =
                |(other, member): (&Arc<str>, &Member)| if other == name { 0 } else { kept.saturating_sub(member.used) };
            let spare = || self.free.saturating_sub(self.members.iter().map(lacking).sum());
            let fits = self.free >= *units && (own || open && spare() >= *units);
            // Whoever asks for much must not wait for ever behind those who ask for little.
            open &= fits;
            fits
        })
    }

    fn take(&mut self, name: &Arc<str>, units: u32, measure: Measure) {
        let floor = self.floor;
        let member = self.members.entry(name.clone()).or_default();
        member.used += units;
        member.time = member.time.max(floor);
        self.free = self.free.saturating_sub(units);
        if measure == Measure::Time {
            self.floor = member.time;
        }
    }

    fn give_back(&mut self, name: &Arc<str>, units: u32, time: Duration) {
        self.free += units;
        if let Some(member) = self.members.get_mut(name) {
            member.used = member.used.saturating_sub(units);
            member.time += time;
        }
    }
}

impl Share {
    /// Waits for this many units.
    pub(super) async fn take(&self, units: u32) -> Option<Taken> {
        let (ready, taken) = oneshot::channel();
        {
            let mut state = self.pool.state();
            state.serial += 1;
            let (name, serial) = (self.name.clone(), state.serial);
            let units = units.min(state.capacity);
            state.waiting.push(Waiting { name, units, serial, since: Instant::now(), ready });
            self.pool.serve(&mut state);
        }
        taken.await.ok()
    }

    /// Returns how long the type has been waiting for units.
    pub(super) fn waiting(&self) -> Duration {
        let state = self.pool.state();
        let own = state.waiting.iter().filter(|waiting| waiting.name == self.name && !waiting.ready.is_closed());
        own.map(|waiting| waiting.since.elapsed()).max().unwrap_or_default()
    }

    /// Returns the number of types that share the pool.
    pub(super) fn members(&self) -> u32 {
        u32::try_from(self.pool.state().members.len()).unwrap_or(u32::MAX)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if let Some(member) = state.members.get_mut(&self.name) {
            member.shares -= 1;
            if member.shares == 0 {
                state.members.remove(&self.name);
            }
        }
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
}
