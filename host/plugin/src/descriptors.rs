//! The file descriptors that plugins hold: sockets, and the connections of HTTP requests.
//!
//! Plugins together must never take those that the relay needs itself. Every type that may open any has an
//! equal share. `tcp` and `http` take them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, Semaphore};

use super::lookup::LOOKUPS;

/// What all plugins may hold together, as parts of the process' limit: half of it, most of it in use, the rest
/// by idle HTTP connections.
const IN_USE: (usize, usize) = (3, 8);
const IDLE: (usize, usize) = (1, 8);
/// How many HTTP clients share the part for idle connections.
const CLIENTS: usize = 16;

/// Raises the limit of descriptors of this process as far as it may, and returns it.
pub fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Some systems have a limit below the one that they tell; then the present one stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    limit()
}

/// Returns the limit of descriptors of this process.
fn limit() -> usize {
    const UNLIMITED: usize = usize::MAX >> 8;
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// The descriptors of all plugins of an engine.
pub(super) struct Descriptors {
    limit: usize,
    types: Mutex<HashMap<String, Weak<Account>>>,
}

/// The descriptors of a signal type's plugins, of all generations together.
pub(super) struct Account {
    descriptors: Arc<Descriptors>,
    held: AtomicUsize,
    freed: Notify,
    lookups: Arc<Semaphore>,
}

/// One descriptor, until dropped.
pub(super) struct Held(Arc<Account>);

/// A signal type holds its share.
#[derive(Debug, thiserror::Error)]
#[error("the signal type has {0} sockets and HTTP requests open, its share of the file descriptors (`ulimit -n`)")]
pub(super) struct ShareExceeded(usize);

impl Descriptors {
    pub(super) fn new() -> Self {
        Self::within(limit())
    }

    fn within(limit: usize) -> Self {
        Self { limit, types: Mutex::default() }
    }

    /// Returns the account of a signal type, whose plugin may open descriptors.
    pub(super) fn account(self: &Arc<Self>, signal_type: &str) -> Arc<Account> {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = types.get(signal_type).and_then(Weak::upgrade) {
            return account;
        }
        let account = Arc::new(Account {
            descriptors: self.clone(),
            held: AtomicUsize::new(0),
            freed: Notify::new(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        });
        types.retain(|_, account| account.strong_count() > 0);
        types.insert(signal_type.to_owned(), Arc::downgrade(&account));
        account
    }

    /// Returns how many idle connections an HTTP client may keep for each of its hosts.
    pub(super) fn idle(&self, hosts: usize) -> usize {
        part(self.limit, IDLE) / CLIENTS / hosts.max(1)
    }

    /// Returns the share of each type.
    fn share(&self) -> usize {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = types.values().filter(|account| account.strong_count() > 0).count();
        (part(self.limit, IN_USE) / alive.max(1)).max(1)
    }
}

fn part(limit: usize, (of, parts): (usize, usize)) -> usize {
    limit / parts * of
}

impl Account {
    /// Takes a descriptor.
    ///
    /// # Errors
    /// The type holds its share.
    pub(super) fn take(self: &Arc<Self>) -> Result<Held, ShareExceeded> {
        let share = self.descriptors.share();
        let taken = self.held.fetch_update(Relaxed, Relaxed, |held| (held < share).then_some(held + 1));
        taken.map(|_| Held(self.clone())).map_err(|_| ShareExceeded(share))
    }

    /// Returns the places for the name lookups of its sockets.
    pub(super) fn lookups(&self) -> Arc<Semaphore> {
        self.lookups.clone()
    }

    /// Takes a descriptor as soon as the type holds less than its share.
    pub(super) async fn wait(self: &Arc<Self>) -> Held {
        loop {
            let freed = self.freed.notified();
            if let Ok(held) = self.take() {
                return held;
            }
            freed.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Account").field("held", &self.held).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_share() {
        let all = Arc::new(Descriptors::within(80));
        let (one, other) = (all.account("One"), all.account("Other"));
        let mut held: Vec<Held> = (0..15).map(|_| one.take().unwrap()).collect();
        let told = one.take().map(drop).unwrap_err().to_string();
        assert!(told.starts_with("the signal type has 15 sockets and HTTP requests open"), "{told}");
        assert!(other.take().is_ok());
        held.pop();
        held.push(all.account("One").take().unwrap());
        assert!(one.take().is_err());
        // The last generation of a type leaves its share to the others.
        drop((held, one));
        assert!((0..30).map(|_| other.take()).collect::<Result<Vec<_>, _>>().is_ok());
    }

    #[tokio::test]
    async fn whoever_waits_has_the_next_that_is_freed() {
        let one = Arc::new(Descriptors::within(8)).account("One");
        let mut held: Vec<Held> = (0..3).map(|_| one.take().unwrap()).collect();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                tokio::spawn({
                    let one = one.clone();
                    async move { one.wait().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        held.truncate(1);
        for waiting in waiting {
            held.push(waiting.await.unwrap());
        }
        assert!(one.take().is_err());
    }

    #[test]
    fn the_limit_is_the_hard_one() {
        let limit = raise_descriptor_limit();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        if let Some([.., soft, hard, _]) = line.map(|line| line.split_whitespace().collect::<Vec<_>>()).as_deref() {
            assert_eq!((soft, limit.to_string().as_str()), (hard, *soft));
        }
    }

    #[test]
    fn idle_connections_are_few_where_descriptors_are() {
        assert_eq!([0, 1, 4, 100].map(|hosts| Descriptors::within(1024).idle(hosts)), [8, 8, 2, 0]);
        assert!(Descriptors::within(1 << 20).idle(10) >= 256);
    }
}
