//! Name lookups, which the system's resolver does in a thread each.
//!
//! They must never take all threads: a lookup cannot be stopped, and counts until it ends, even if nobody waits for
//! it any more. `tcp` and `client` decide which of the addresses may be used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::vec::IntoIter;

use futures::FutureExt as _;
use tokio::sync::Semaphore;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

/// Maximum number of names that a signal type looks up at once for sockets, and for HTTP.
pub(super) const LOOKUPS: usize = 16;

/// Looks a name up as soon as there is a place.
pub(super) async fn look_up(places: Arc<Semaphore>, name: String) -> io::Result<Vec<SocketAddr>> {
    let place = places.acquire_owned().await;
    let lookup = tokio::spawn(async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect);
        drop(place);
        found
    });
    lookup.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A guest's lookup of a granted name.
pub(super) struct NameLookup {
    pub(super) name: String,
    progress: Progress,
}

enum Progress {
    Pending(Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>),
    Done(Result<IntoIter<IpAddr>, ErrorCode>),
}

impl NameLookup {
    pub(super) fn of_name(name: String, places: Arc<Semaphore>) -> Self {
        let progress = Progress::Pending(Box::pin(look_up(places, name.clone())));
        let mut lookup = Self { name, progress };
        // It begins before anybody waits for it.
        lookup.ready().now_or_never();
        lookup
    }

    /// An address in the place of a name stands for itself.
    pub(super) fn of_address(name: String, address: IpAddr) -> Self {
        Self { name, progress: Progress::Done(Ok(vec![address].into_iter())) }
    }

    /// Returns the next address, if there is one.
    ///
    /// # Errors
    /// The lookup has failed, or goes on.
    pub(super) fn next(&mut self) -> Result<Option<IpAddr>, ErrorCode> {
        self.ready().now_or_never();
        match &mut self.progress {
            Progress::Pending(_) => Err(ErrorCode::WouldBlock),
            Progress::Done(Ok(addresses)) => Ok(addresses.next()),
            Progress::Done(Err(error)) => Err(*error),
        }
    }
}

#[async_trait]
impl Pollable for NameLookup {
    async fn ready(&mut self) {
        if let Progress::Pending(lookup) = &mut self.progress {
            let found = lookup.await;
            let addresses = |found: Vec<SocketAddr>| found.iter().map(|found| found.ip().to_canonical()).collect::<Vec<_>>();
            let found = found.map(|found| addresses(found).into_iter());
            self.progress = Progress::Done(found.map_err(|_| ErrorCode::NameUnresolvable));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lookup_without_a_place_waits() {
        let places = Arc::new(Semaphore::new(1));
        let taken = places.clone().acquire_owned().await.unwrap();
        let mut lookup = NameLookup::of_name("localhost".to_owned(), places.clone());
        tokio::task::yield_now().await;
        assert_eq!(lookup.next(), Err(ErrorCode::WouldBlock));
        drop(taken);
        lookup.ready().await;
        assert!(lookup.next().unwrap().unwrap().is_loopback());
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_lookup_that_is_given_up_keeps_its_place_until_it_ends() {
        let places = Arc::new(Semaphore::new(1));
        drop(NameLookup::of_name("localhost".to_owned(), places.clone()));
        assert_eq!(places.available_permits(), 0);
        let _place = places.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn unknown_names_and_addresses_need_no_guess() {
        let mut lookup = NameLookup::of_name("no-such-host.invalid".to_owned(), Arc::new(Semaphore::new(1)));
        lookup.ready().await;
        assert_eq!(lookup.next(), Err(ErrorCode::NameUnresolvable));
        let mut lookup = NameLookup::of_address("[::1]".to_owned(), "::1".parse().unwrap());
        assert_eq!((lookup.next(), lookup.next()), (Ok("::1".parse().ok()), Ok(None)));
    }
}
