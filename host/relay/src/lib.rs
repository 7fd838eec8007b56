//! The relay: builds signal types from configuration, outbox and plugins, and flushes them, either once
//! ([`Relay`]) or until it is stopped ([`Live`]).
//!
//! Knows no SQL, no WebAssembly and no bus protocol. Next: [`flusher`], the path of a signal.

#![forbid(unsafe_code)]

mod activity;
#[cfg(feature = "admin")]
pub mod admin;
pub mod config;
#[cfg(test)]
mod fake;
mod files;
pub mod flusher;
mod live;
mod parked;
mod ports;
mod redrive;
mod runner;
mod sample;
mod status;
mod watcher;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SignalConfig};
use crate::flusher::{Flusher, Halt, Patience, Tally};
use signalbus_bus::Buses;
use signalbus_outbox::{Error, Outbox, SignalTable};
use signalbus_plugin::{Compiler, Engine, Generations, cache_folder};
use signalbus_telemetry as telemetry;

pub use live::{Live, Unknown};
pub use ports::{ClaimSession, Claims};
pub use redrive::{Redriven, not_configured, redrive, redrive_selected};
pub use status::Status;

/// Grace period in which a stopped relay finishes and settles what is in flight.
pub const GRACE: Duration = Duration::from_secs(30);

/// A relay that flushes its signal types once.
pub struct Relay {
    flushers: Vec<Arc<Flusher>>,
    grace: Duration,
}

/// Why a relay cannot start.
#[derive(Debug)]
pub enum Refusal {
    /// The database is unreachable or returned an error.
    Database(Error),
    /// Every problem with the configuration, the tables and the plugins.
    Faults(Vec<String>),
}

/// Which rows to flush.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// The rows that are pending at the start. Sending starts after `wait`, so that faster senders can
    /// go first.
    Pending { wait: Duration },
    /// Every row, until nothing is due.
    All,
}

/// The result of flushing one signal type.
#[derive(Debug)]
pub struct Flushed {
    pub signal: String,
    pub tally: Arc<Tally>,
    /// How long sending took, all types together; the wait before it is not part of it.
    pub time: Duration,
    /// Why the flush ended early.
    pub halt: Option<Halt>,
}

/// Opens the outbox of a configuration, without a connection.
///
/// # Errors
/// Its URL is not supported.
pub fn open_outbox(config: &Config) -> Result<Outbox, Error> {
    let database = &config.database;
    Outbox::open(&database.url, database.max_connections)?
        .with_source(database.source.clone())
        .with_side_schema(database.side_schema.clone())
}

impl Relay {
    /// Opens the outbox, resolves every table and loads every plugin.
    ///
    /// # Errors
    /// Every problem at once, or the database's error.
    pub async fn open(config: &Config, signals: &[SignalConfig], compiler: Compiler) -> Result<Self, Refusal> {
        let outbox = open_outbox(config)?;
        outbox.require_schema().await?;
        let engine = Engine::new(cache_folder(), compiler).map_err(|error| Refusal::Faults(vec![format!("{error:#}")]))?;
        engine.keep_shares(signals.iter().map(SignalConfig::spec));
        let opened = open_all(&outbox, &engine, &Buses::default(), signals, Patience::ONE_SHOT).await?;
        Ok(Self::from_flushers(opened.into_iter().map(|(flusher, _)| flusher).collect()))
    }

    /// Creates a relay from flushers.
    pub fn from_flushers(flushers: Vec<Flusher>) -> Self {
        Self { flushers: flushers.into_iter().map(Arc::new).collect(), grace: GRACE }
    }

    /// Flushes all signal types concurrently until nothing in `extent` is due.
    ///
    /// `stop` ends the flush early, after a grace period in which what is in flight is finished and
    /// settled. `begun` receives the counters at the start.
    pub async fn flush(&self, extent: Extent, stop: &CancellationToken, begun: impl FnOnce(Vec<Arc<Tally>>)) -> Vec<Flushed> {
        let tallies: Vec<Arc<Tally>> = self.flushers.iter().map(|_| Arc::default()).collect();
        begun(tallies.clone());
        join_all(self.flushers.iter().map(|flusher| sweep(&flusher.table))).await;
        let boundaries = match extent {
            Extent::All => vec![Ok(Boundary::Open); self.flushers.len()],
            Extent::Pending { wait } => {
                let boundaries = join_all(self.flushers.iter().map(|flusher| boundary(flusher))).await;
                if boundaries.iter().any(|boundary| matches!(boundary, Ok(Boundary::UpTo(_)))) {
                    telemetry::waiting(wait);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => {}
                    }
                }
                boundaries
            }
        };
        let mut flushed = Vec::new();
        let mut parts = Vec::new();
        for ((flusher, tally), boundary) in self.flushers.iter().zip(&tallies).zip(boundaries) {
            let signal = flusher.table.signal_type().name.clone();
            let mut result = Flushed { signal, tally: tally.clone(), time: Duration::ZERO, halt: None };
            let (position, flusher, tally) = (flushed.len(), flusher.clone(), tally.clone());
            match boundary {
                Err(error) => result.halt = Some(Halt::Database(error)),
                Ok(Boundary::Empty) => {}
                Ok(boundary) => {
                    let (boundary, halt) = (boundary.key(), stop.child_token());
                    let (stop, grace) = (stop.clone(), self.grace);
                    parts.push(Part { position, flusher, tally, boundary, stop, halt, grace });
                }
            }
            flushed.push(result);
        }
        let begun = Instant::now();
        let mut workers = JoinSet::new();
        for part in &parts {
            for _ in 0..part.flusher.concurrency.most {
                workers.spawn(part.clone().run());
            }
        }
        collect(workers, &mut flushed).await;
        flushed.iter_mut().for_each(|part| part.time = begun.elapsed());
        flushed
    }
}

/// The share of a flush that belongs to one signal type.
#[derive(Clone)]
struct Part {
    position: usize,
    flusher: Arc<Flusher>,
    tally: Arc<Tally>,
    boundary: Option<String>,
    stop: CancellationToken,
    /// Ends all workers of this signal type, and no others, for example after an outage.
    halt: CancellationToken,
    grace: Duration,
}

impl Part {
    async fn run(self) -> (usize, Option<Halt>) {
        let overdue = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        let halt = tokio::select! {
            ended = self.flusher.flush(self.boundary.as_deref(), &self.tally, &self.halt) => ended.err(),
            () = overdue => Some(Halt::Abandoned),
        };
        if halt.is_some() {
            self.halt.cancel();
        }
        (self.position, halt)
    }
}

#[derive(Clone)]
enum Boundary {
    Open,
    UpTo(String),
    Empty,
}

impl Boundary {
    fn key(self) -> Option<String> {
        match self {
            Self::UpTo(key) => Some(key),
            Self::Open | Self::Empty => None,
        }
    }
}

/// Finds dead letters whose rows were repaired, to be sent again; a failure shows when the rows are claimed.
async fn sweep(table: &SignalTable) {
    const PAGE: usize = 1000;
    let mut after = Some(0);
    while let Some(from) = after {
        after = table.sweep(from, PAGE).await.ok().and_then(|(next, _)| next);
    }
}

async fn boundary(flusher: &Flusher) -> Result<Boundary, Error> {
    let key = flusher.table.session().boundary().await?;
    Ok(key.map_or(Boundary::Empty, Boundary::UpTo))
}

async fn collect(mut tasks: JoinSet<(usize, Option<Halt>)>, flushed: &mut [Flushed]) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((position, halt)) => {
                let part = &mut flushed[position];
                // `Stopped` only follows from a sibling's outage: keep the sibling's reason.
                if part.halt.is_none() || matches!(part.halt, Some(Halt::Stopped)) {
                    part.halt = halt.or(part.halt.take());
                }
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
}

/// The flusher of a signal type and the generations of its plugin.
type Opened = (Flusher, Arc<Generations>);

async fn open_all(
    outbox: &Outbox,
    engine: &Engine,
    buses: &Buses,
    signals: &[SignalConfig],
    patience: Patience,
) -> Result<Vec<Opened>, Refusal> {
    let opening = signals.iter().map(|signal| open_one(outbox, engine, buses, signal, patience));
    let mut opened = Vec::new();
    let mut faults = Vec::new();
    for one in join_all(opening).await {
        match one {
            Ok(one) => opened.push(one),
            Err(Refusal::Faults(more)) => faults.extend(more),
            Err(database) => return Err(database),
        }
    }
    if faults.is_empty() { Ok(opened) } else { Err(Refusal::Faults(faults)) }
}

async fn open_one(
    outbox: &Outbox,
    engine: &Engine,
    buses: &Buses,
    signal: &SignalConfig,
    patience: Patience,
) -> Result<Opened, Refusal> {
    let mut spec = signal.spec();
    for (grant, connection) in signal.granted_connections() {
        let publisher = buses.open(connection).map_err(|fault| Refusal::Faults(vec![fault]))?;
        spec.connections.grant(grant.clone(), publisher);
    }
    let (table, plugin) = tokio::join!(outbox.signal_table(&signal.source), Generations::load(engine, spec));
    let (table, plugin) = match (table, plugin) {
        (Ok(table), Ok(plugin)) => (table, plugin),
        (Err(error @ (Error::Unreachable(_) | Error::Refused { .. })), _) => return Err(error.into()),
        (table, plugin) => {
            let table = table.err().map(|error| format!("{}: {error}", signal.place));
            let plugin = plugin.err().map(|error| format!("{}: signal type \"{}\": {error}", signal.place, signal.name()));
            return Err(Refusal::Faults(table.into_iter().chain(plugin).collect()));
        }
    };
    let flusher = Flusher {
        table,
        sender: plugin.clone(),
        policy: signal.policy.clone(),
        burst_count: signal.burst_count,
        concurrency: signal.concurrency.into(),
        patience,
    };
    Ok((flusher, plugin))
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable(_) | Error::Refused { .. } => Self::Database(error),
            Error::Schema(_) | Error::Table(_) | Error::Altered(_) => Self::Faults(vec![error.to_string()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbus_core::backoff::Backoff;
    use signalbus_core::settlement::Policy;
    use signalbus_core::signal::{Signal, SignalType};
    use signalbus_outbox::Source;
    use signalbus_plugin::{Sender, Sending};

    struct Stuck(CancellationToken);

    impl Sender for Stuck {
        fn send<'a>(&'a self, _: &'a SignalType, _: &'a [Signal], _: &'a CancellationToken) -> Sending<'a> {
            self.0.cancel();
            Box::pin(std::future::pending())
        }
    }

    /// The plugin stops the relay when it is called.
    #[tokio::test]
    async fn a_call_that_outlasts_the_grace_period_is_abandoned() {
        let folder = tempfile::TempDir::new().unwrap();
        let outbox = Outbox::open(&format!("sqlite://{}/outbox.db?mode=rwc", folder.path().display()), 1).unwrap();
        outbox.migrate().await.unwrap();
        outbox.run_script("CREATE TABLE a (id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1)").await.unwrap();
        let source = Source { signal: "A".into(), table: "a".into(), ..Source::default() };
        let stop = CancellationToken::new();
        let flusher = Flusher {
            table: outbox.signal_table(&source).await.unwrap(),
            sender: Arc::new(Stuck(stop.clone())),
            policy: Policy { ordered: false, holds_dead: false, max_attempts: 1, backoff: Backoff::default() },
            burst_count: 1,
            concurrency: 2.into(),
            patience: Patience::ONE_SHOT,
        };
        let relay = Relay { grace: Duration::from_millis(50), ..Relay::from_flushers(vec![flusher]) };
        let flushed = relay.flush(Extent::All, &stop, |_| {}).await;
        assert!(matches!(flushed[0].halt, Some(Halt::Abandoned)), "{flushed:?}");
        assert_eq!(outbox.pending(&source).await.unwrap(), 1);
    }
}
