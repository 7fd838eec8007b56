//! A connection that is opened when it is first used, and reopened after a loss.
//!
//! Never connects faster than its backoff allows, which starts over only after the bus has confirmed a
//! message: a message that breaks every connection makes no storm. Each bus keeps its session in one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Receipt, unavailable};
use signalbus_core::backoff::Backoff;
use signalbus_core::signal::{Outage, Outcome};

/// A connection that is opened when it is needed, by one caller at a time, and reopened with a backoff.
pub(super) struct SharedConnection<C> {
    state: Mutex<State<C>>,
}

struct State<C> {
    current: Option<Arc<C>>,
    /// Failed attempts and broken connections since the last message was confirmed.
    failures: u32,
    /// The last failure, and when the next attempt may be made.
    failed: Option<(Failed, Instant)>,
}

/// A failure.
enum Failed {
    /// The bus cannot be reached.
    Connecting(Outage),
    /// The connection broke: the bus may well be there, and callers wait for the next attempt.
    Broken,
}

impl<C> Default for SharedConnection<C> {
    /// Creates a closed connection.
    fn default() -> Self {
        Self { state: Mutex::new(State { current: None, failures: 0, failed: None }) }
    }
}

impl<C> SharedConnection<C> {
    /// Returns the connection. If there is none, or `alive` rejects it, opens one with `connect`, until `deadline`.
    ///
    /// # Errors
    /// Connecting failed, now or so recently that the backoff has not passed; an `Unavailable` outage
    /// says when to try again.
    pub(super) async fn get(
        &self,
        alive: impl Fn(&C) -> bool,
        connect: impl Future<Output = Result<C, Outage>>,
        deadline: Instant,
    ) -> Result<Arc<C>, Outage> {
        let begun = Instant::now();
        let mut state = self.state.lock().await;
        loop {
            if let Some(current) = state.current.take_if(|current| alive(current)) {
                state.current = Some(current.clone());
                return Ok(current);
            }
            // One that broke between two calls is replaced at once, but not again and again.
            match state.current.take() {
                Some(_) if state.failures == 0 => state.failures = 1,
                Some(_) => drop(state.fail(Failed::Broken)),
                None => {}
            }
            let Some((failed, next)) = &state.failed else { break };
            let wait = next.saturating_duration_since(Instant::now());
            match failed {
                _ if wait.is_zero() => break,
                Failed::Connecting(outage) => return Err(after(outage.clone(), wait)),
                Failed::Broken if wait > deadline.saturating_duration_since(Instant::now()) / 2 => {
                    return Err(after(unavailable("the connection breaks again and again"), wait));
                }
                Failed::Broken => drop(state),
            }
            sleep(wait).await;
            state = self.state.lock().await;
        }
        let connected = timeout_at(deadline, connect).await;
        let late = |_| Err(unavailable(format!("no connection within {:.1}s", begun.elapsed().as_secs_f64())));
        match connected.unwrap_or_else(late) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                state.current = Some(connection.clone());
                state.failed = None;
                Ok(connection)
            }
            Err(outage) => {
                let wait = state.fail(Failed::Connecting(outage.clone()));
                Err(after(outage, wait))
            }
        }
    }

    /// Ends a call that used a connection: discards one that is not `usable` or has left messages without
    /// an outcome.
    pub(super) async fn end_call(&self, used: &Arc<C>, receipts: &[Receipt], usable: bool) {
        let mut state = self.state.lock().await;
        if receipts.contains(&Ok(Outcome::Sent)) {
            state.failures = 0;
        }
        let failed = !usable || receipts.iter().any(Result::is_err);
        if failed && state.current.take_if(|current| Arc::ptr_eq(current, used)).is_some() {
            state.fail(Failed::Broken);
        }
    }

    /// Discards a connection, if it is still the current one, without blame.
    pub(super) async fn lose(&self, lost: &Arc<C>) {
        let mut state = self.state.lock().await;
        state.current.take_if(|current| Arc::ptr_eq(current, lost));
    }
}

impl<C> State<C> {
    /// Records a failure; returns how long to wait until the next attempt.
    fn fail(&mut self, failed: Failed) -> Duration {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(3);
        self.failures += 1;
        let backoff = Backoff::new(FIRST, 2.0, LONGEST, 0.2);
        let wait = backoff.map_or(LONGEST, |backoff| backoff.delay(self.failures, fastrand::f64()));
        self.failed = Some((failed, Instant::now() + wait));
        wait
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

    use super::super::broken;
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_without_a_bus_makes_a_bounded_number_of_attempts() {
        let (shared, attempts) = (SharedConnection::<()>::default(), AtomicU32::new(0));
        let begun = Instant::now();
        let mut asked = 0;
        while begun.elapsed() < Duration::from_secs(3600) {
            asked += 1;
            let failed = shared.get(
                |()| true,
                async {
                    attempts.fetch_add(1, Relaxed);
                    Err(unavailable("refused"))
                },
                soon(),
            );
            let Err(Outage::Unavailable { after: Some(wait), .. }) = failed.await else { panic!("it has no wait") };
            assert!(wait <= Duration::from_secs(4), "{wait:?}");
            tokio::time::sleep(wait / 2).await;
        }
        let attempts = attempts.load(Relaxed);
        assert!((900..2000).contains(&attempts) && asked > attempts, "{attempts} of {asked}");
    }

    /// A message that breaks every connection makes no storm; one that is confirmed ends the backoff.
    #[tokio::test(start_paused = true)]
    async fn connections_that_break_are_replaced_with_a_backoff() {
        let (shared, attempts, begun) = (SharedConnection::default(), AtomicU32::new(0), Instant::now());
        let connect = async || Ok(attempts.fetch_add(1, Relaxed));
        while begun.elapsed() < Duration::from_secs(60) {
            match shared.get(|_| true, connect(), soon()).await {
                Ok(used) => shared.end_call(&used, &[Ok(Outcome::Skip), Err(broken("reset"))], true).await,
                Err(Outage::Unavailable { after: Some(wait), .. }) => tokio::time::sleep(wait).await,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!((20..40).contains(&attempts.load(Relaxed)), "{attempts:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let found = shared.get(|_| true, connect(), soon()).await.unwrap();
        shared.end_call(&found, &[Ok(Outcome::Sent)], true).await;
        // What broke between two calls is replaced at once, but only once.
        let confirmed = Instant::now();
        shared.get(|_| false, connect(), soon()).await.unwrap();
        assert!(confirmed.elapsed().is_zero());
        assert!(shared.get(|_| false, connect(), soon()).await.is_ok() && confirmed.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_times_out() {
        let shared = SharedConnection::<()>::default();
        let failed = shared.get(|()| true, std::future::pending(), Instant::now() + Duration::from_secs(7)).await;
        let Err(Outage::Unavailable { reason, .. }) = failed else { panic!("it connected") };
        assert_eq!(reason, "no connection within 7.0s");
    }

    #[tokio::test]
    async fn a_connection_is_shared_until_it_is_lost() {
        let shared = SharedConnection::default();
        let first = shared.get(|_| true, async { Ok(1) }, soon()).await.unwrap();
        let again = shared.get(|_| true, async { Ok(2) }, soon()).await.unwrap();
        assert_eq!((*first, *again), (1, 1));
        shared.lose(&first).await;
        let third = shared.get(|_| true, async { Ok(3) }, soon()).await.unwrap();
        shared.lose(&first).await;
        assert_eq!(*shared.get(|_| true, async { Ok(4) }, soon()).await.unwrap(), 3);
        assert_eq!(*shared.get(|_| false, async { Ok(5) }, soon()).await.unwrap(), 5);
        assert_eq!(*third, 3);
    }
}
