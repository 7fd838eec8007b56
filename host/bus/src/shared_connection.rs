//! A connection that is opened when it is first used, and reopened after a loss.
//!
//! Never connects faster than its backoff allows. Each bus keeps its session in one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::unavailable;
use signalbus_core::backoff::Backoff;
use signalbus_core::signal::Outage;

/// A connection that is opened when it is needed, by one caller at a time, and reopened with a backoff.
pub(super) struct SharedConnection<C> {
    patience: Duration,
    state: Mutex<State<C>>,
}

struct State<C> {
    current: Option<Arc<C>>,
    failures: u32,
    /// The last failure, and when the next attempt may be made.
    failed: Option<(Outage, Instant)>,
}

impl<C> SharedConnection<C> {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3);

    /// Creates a closed connection; `patience` is the time limit for connecting.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, state: Mutex::new(State { current: None, failures: 0, failed: None }) }
    }

    /// Returns the connection. If there is none, or `alive` rejects it, opens one with `connect`.
    ///
    /// # Errors
    /// Connecting failed, now or so recently that the backoff has not passed; an `Unavailable` outage
    /// says when to try again.
    pub(super) async fn get(
        &self,
        alive: impl Fn(&C) -> bool,
        connect: impl Future<Output = Result<C, Outage>>,
    ) -> Result<Arc<C>, Outage> {
        let mut state = self.state.lock().await;
        if let Some(current) = state.current.take_if(|current| alive(current)) {
            state.current = Some(current.clone());
            return Ok(current);
        }
        state.current = None;
        if let Some((outage, next)) = &state.failed
            && let wait = next.saturating_duration_since(Instant::now())
            && !wait.is_zero()
        {
            return Err(after(outage.clone(), wait));
        }
        let connected = timeout(self.patience, connect).await;
        match connected.unwrap_or_else(|_| Err(unavailable(format!("no connection within {:?}", self.patience)))) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *state = State { current: Some(connection.clone()), failures: 0, failed: None };
                Ok(connection)
            }
            Err(outage) => {
                state.failures += 1;
                let backoff = Backoff::new(Self::FIRST, 2.0, Self::LONGEST, 0.2);
                let wait = backoff.map_or(Self::LONGEST, |backoff| backoff.delay(state.failures, fastrand::f64()));
                state.failed = Some((outage.clone(), Instant::now() + wait));
                Err(after(outage, wait))
            }
        }
    }

    /// Discards a connection, if it is still the current one.
    pub(super) async fn lose(&self, lost: &Arc<C>) {
        let mut state = self.state.lock().await;
        state.current.take_if(|current| Arc::ptr_eq(current, lost));
    }
}

fn after(outage: Outage, wait: Duration) -> Outage {
    match outage {
        Outage::Unavailable { reason, .. } => Outage::Unavailable { reason, after: Some(wait) },
        misconfigured @ Outage::Misconfigured { .. } => misconfigured,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_without_a_bus_makes_a_bounded_number_of_attempts() {
        let (shared, attempts) = (SharedConnection::<()>::new(Duration::from_secs(1)), AtomicU32::new(0));
        let begun = Instant::now();
        let mut asked = 0;
        while begun.elapsed() < Duration::from_secs(3600) {
            asked += 1;
            let failed = shared.get(|()| true, async {
                attempts.fetch_add(1, Relaxed);
                Err(unavailable("refused"))
            });
            let Err(Outage::Unavailable { after: Some(wait), .. }) = failed.await else { panic!("it has no wait") };
            assert!(wait <= Duration::from_secs(4), "{wait:?}");
            tokio::time::sleep(wait / 2).await;
        }
        let attempts = attempts.load(Relaxed);
        assert!((900..2000).contains(&attempts) && asked > attempts, "{attempts} of {asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_times_out() {
        let shared = SharedConnection::<()>::new(Duration::from_secs(7));
        let failed = shared.get(|()| true, std::future::pending()).await;
        let Err(Outage::Unavailable { reason, .. }) = failed else { panic!("it connected") };
        assert_eq!(reason, "no connection within 7s");
    }

    #[tokio::test]
    async fn a_connection_is_shared_until_it_is_lost() {
        let shared = SharedConnection::new(Duration::from_secs(1));
        let first = shared.get(|_| true, async { Ok(1) }).await.unwrap();
        let again = shared.get(|_| true, async { Ok(2) }).await.unwrap();
        assert_eq!((*first, *again), (1, 1));
        shared.lose(&first).await;
        let third = shared.get(|_| true, async { Ok(3) }).await.unwrap();
        shared.lose(&first).await;
        assert_eq!(*shared.get(|_| true, async { Ok(4) }).await.unwrap(), 3);
        assert_eq!(*shared.get(|_| false, async { Ok(5) }).await.unwrap(), 5);
        assert_eq!(*third, 3);
    }
}
