//! Stand-ins for the outbox and the plugin of a signal type. What the loops ask becomes a list of
//! questions, in their order, and the test answers them; under a paused clock, nothing else takes time.
//!
//! Decides nothing in a test's place. Next: `ports`, what they implement; the tests of `flusher`,
//! `runner` and `watcher`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::LastActivity;
use crate::config::SignalConfig;
use crate::flusher::{Flusher, Patience};
use crate::ports::{ClaimSession, Claims, LoadedPlugin};
use crate::runner::SignalRunner;
use signalbus_core::backoff::Backoff;
use signalbus_core::settlement::{Policy, Settlement};
use signalbus_core::signal::{Outage, Outcome, Signal, SignalType, Verdict};
use signalbus_outbox::{Batch, Cause, Claimed, Deletions, Error, Settled, Source};
use signalbus_plugin::{Grants, Limits, Sender, Sending};

/// Nothing is this far off: a test that waits for longer waits for ever. Takes no time under a paused clock.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) enum Asked {
    Claim(oneshot::Sender<Result<Claimed, Error>>),
    Send(oneshot::Sender<Verdict>),
    Renew(oneshot::Sender<Result<bool, Error>>),
    Settle(Settlement, oneshot::Sender<Result<Settled, Error>>),
    /// Has no answer.
    Rescan,
}

/// The table and the plugin of a signal type, which ask the test.
#[derive(Clone)]
pub(super) struct FakeTable {
    signal_type: SignalType,
    asked: mpsc::UnboundedSender<Asked>,
}

/// The test's end of a [`FakeTable`].
pub(super) struct Questions(mpsc::UnboundedReceiver<Asked>);

/// What a runner knows of its plugin: whether it was rolled back.
#[derive(Default)]
pub(super) struct FakePlugin(pub(super) AtomicBool);

/// A runner without outbox or plugin.
pub(super) type FakeRunner = SignalRunner<FakeTable, FakePlugin>;

/// Returns a runner that has not started, and what its workers will ask.
pub(super) fn runner(name: &str, activity: Arc<LastActivity>) -> (FakeRunner, Questions) {
    let (table, asked) = FakeTable::for_type(name);
    let opened = (table.flusher(Patience::FOREVER), Arc::default());
    (SignalRunner::new(config(name), opened, activity, CancellationToken::new()), asked)
}

/// How many signals make a batch full.
const BURST: usize = 2;

/// Returns the configuration of a signal type.
pub(super) fn config(name: &str) -> SignalConfig {
    SignalConfig {
        place: String::new(),
        source: Source { signal: name.into(), ..Source::default() },
        plugin: PathBuf::new(),
        digest: None,
        burst_count: BURST,
        concurrency: 1,
        autoflush: true,
        limits: Limits::default(),
        policy: policy(),
        grants: Grants::default(),
        connections: Vec::new(),
    }
}

fn policy() -> Policy {
    Policy { ordered: false, holds_dead: false, max_attempts: 5, backoff: Backoff::default() }
}

impl LoadedPlugin for FakePlugin {
    fn take_rolled_back(&self) -> bool {
        self.0.swap(false, Relaxed)
    }

    fn shortage(&self) -> Option<String> {
        None
    }
}

impl FakeTable {
    pub(super) fn for_type(name: &str) -> (Self, Questions) {
        let (asked, questions) = mpsc::unbounded_channel();
        let signal_type = SignalType { name: name.into(), columns: Vec::new(), attributes: Vec::new() };
        (Self { signal_type, asked }, Questions(questions))
    }

    /// Returns a flusher whose batches are full with two signals.
    pub(super) fn flusher(self, patience: Patience) -> Flusher<Self> {
        let sender = Arc::new(self.clone());
        Flusher { table: self, sender, policy: policy(), burst_count: BURST, concurrency: 1.into(), patience }
    }

    async fn ask<A>(&self, question: impl FnOnce(oneshot::Sender<A>) -> Asked) -> A {
        let (answer, answered) = oneshot::channel();
        // A test that has ended answers no more.
        let _ = self.asked.send(question(answer));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Claims for FakeTable {
    fn signal_type(&self) -> &SignalType {
        &self.signal_type
    }

    fn session(&self) -> Box<dyn ClaimSession + '_> {
        Box::new(self)
    }

    fn rescan(&self) -> BoxFuture<'_, ()> {
        let _ = self.asked.send(Asked::Rescan);
        Box::pin(std::future::ready(()))
    }
}

impl ClaimSession for &FakeTable {
    fn claim<'a>(&'a mut self, _: usize, _: Option<&'a str>) -> BoxFuture<'a, Result<Claimed, Error>> {
        Box::pin(self.ask(Asked::Claim))
    }

    fn cover(&mut self, _: usize) {}

    fn renew<'a>(&'a mut self, _: &'a Batch) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.ask(Asked::Renew))
    }

    fn settle<'a>(&'a mut self, _: &'a Batch, settlement: &'a Settlement) -> BoxFuture<'a, Result<Settled, Error>> {
        Box::pin(self.ask(|answer| Asked::Settle(settlement.clone(), answer)))
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Sender for FakeTable {
    fn send<'a>(&'a self, _: &'a SignalType, _: &'a [Signal], _: &'a CancellationToken) -> Sending<'a> {
        Box::pin(self.ask(Asked::Send))
    }
}

impl Questions {
    /// Waits for the next question, however far off that is.
    pub(super) async fn next(&mut self) -> Asked {
        self.until_ended().await.expect("the loop has ended")
    }

    /// Waits for the next question; `None` if whoever asks has ended.
    pub(super) async fn until_ended(&mut self) -> Option<Asked> {
        tokio::time::timeout(DAY, self.0.recv()).await.expect("nothing is asked")
    }

    /// Lets `time` pass, in which nothing may be asked.
    pub(super) async fn none_for(&mut self, time: Duration) {
        if let Ok(question) = tokio::time::timeout(time, self.next()).await {
            panic!("asked too early: {question:?}");
        }
    }

    /// Answers the next question, which must be for a claim. Returns how long it was in coming.
    pub(super) async fn claim(&mut self, claimed: Result<Claimed, Error>) -> Duration {
        let begun = Instant::now();
        let Asked::Claim(answer) = self.next().await else { panic!("not a claim") };
        answer.send(claimed).unwrap();
        begun.elapsed()
    }

    /// Expects that the plugin is called; the test may take its time to answer.
    pub(super) async fn send(&mut self) -> oneshot::Sender<Verdict> {
        let Asked::Send(answer) = self.next().await else { panic!("not a send") };
        answer
    }

    /// Answers the next question, which must be for a renewal. Returns how long it was in coming.
    pub(super) async fn renew(&mut self, renewed: Result<bool, Error>) -> Duration {
        let begun = Instant::now();
        let Asked::Renew(answer) = self.next().await else { panic!("not a renewal") };
        answer.send(renewed).unwrap();
        begun.elapsed()
    }

    /// Answers the next question, which must be for a settle. Returns the settlement.
    pub(super) async fn settle(&mut self, settled: Result<Settled, Error>) -> Settlement {
        let Asked::Settle(settlement, answer) = self.next().await else { panic!("not a settle") };
        answer.send(settled).unwrap();
        settlement
    }

    /// Expects that the next claim is told to look from the start.
    pub(super) async fn rescan(&mut self) {
        assert!(matches!(self.next().await, Asked::Rescan));
    }

    /// Answers the next questions: a batch of that many signals is claimed, sent with this verdict, and settled.
    pub(super) async fn batch(&mut self, signals: usize, verdict: Verdict) -> Settlement {
        self.claim(batch(signals)).await;
        self.send().await.send(verdict).unwrap();
        self.settle(done()).await
    }
}

/// A successful claim.
pub(super) fn batch(signals: usize) -> Result<Claimed, Error> {
    let signal = |n: usize| Signal {
        id: format!("Order:{n}"),
        key: n.to_string(),
        order_key: String::new(),
        attempt: 1,
        values: Vec::new(),
    };
    let mut batch = Batch::for_claim("token", (0..signals).map(signal).collect());
    batch.full = signals >= BURST;
    Ok(Claimed::Batch(batch))
}

/// A claim that finds nothing, now or later.
pub(super) fn nothing() -> Result<Claimed, Error> {
    Ok(Claimed::Nothing { due_in: None, claimed_for: None })
}

/// A claim that finds nothing, but a signal that is due later.
pub(super) fn due_in(wait: Duration) -> Result<Claimed, Error> {
    Ok(Claimed::Nothing { due_in: Some(wait), claimed_for: None })
}

/// A claim that finds only what another relay has claimed.
pub(super) fn claimed_for(expiry: Duration) -> Result<Claimed, Error> {
    Ok(Claimed::Nothing { due_in: None, claimed_for: Some(expiry) })
}

/// A successful settle.
pub(super) fn done() -> Result<Settled, Error> {
    Ok(Settled::Done(Deletions::default()))
}

/// The verdict on a batch of which everything was sent.
pub(super) fn sent(signals: usize) -> Verdict {
    Ok(vec![Outcome::Sent; signals])
}

/// The verdict of a bus that is down.
pub(super) fn unavailable(after: Option<Duration>) -> Verdict {
    Err(Outage::Unavailable { reason: "down".into(), after })
}

pub(super) fn unreachable() -> Error {
    Error::Unreachable("no answer".into())
}

pub(super) fn refused(passing: bool) -> Error {
    Error::Refused { message: "no".into(), cause: if passing { Cause::Passing } else { Cause::Final } }
}
