//! Samples of the backlog: often while counting is cheap, rarely while it is expensive.
//!
//! May use at most 1% of the time. Next: `status`, which shows the samples.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::runner::{Health, SignalRunner};
use super::watcher::OutboxWatcher;
use crate::flusher::pause;
use signalbus_outbox::{Error, SideCounts};
use signalbus_telemetry as telemetry;

/// The minimum time between two samples.
const INTERVAL: Duration = Duration::from_secs(15);
/// How many dead letters of a type are compared with their rows at a time.
const SWEPT: usize = 500;
/// At most 1/`SHARE` of the time is spent on counting.
const SHARE: u32 = 100;

/// The backlog of a signal type when it was last counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) pending: u64,
    pub(super) side_counts: SideCounts,
    /// The key of the first pending row, and since when it has been the first.
    head: Option<(String, Instant)>,
}

impl Sample {
    /// Returns the next sample: a row that is still the first has been so since this one.
    fn followed_by(self, pending: u64, side_counts: SideCounts, first: Option<String>) -> Self {
        let head = first.map(|key| match self.head {
            Some((same, since)) if same == key => (key, since),
            _ => (key, Instant::now()),
        });
        Self { pending, side_counts, head }
    }

    /// Returns how long the first row has been the first: a lower bound on its age.
    pub(super) fn oldest(&self) -> Duration {
        self.head.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

/// The last sample of each signal type.
#[derive(Default)]
pub(super) struct Samples(Mutex<HashMap<String, Sample>>);

impl Samples {
    pub(super) fn get(&self, signal: &str) -> Sample {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(signal).cloned().unwrap_or_default()
    }

    fn put(&self, signal: &str, sample: Sample) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(signal.to_owned(), sample);
    }

    /// Samples until stopped, skipping idle periods.
    pub(super) async fn run(&self, watcher: &OutboxWatcher, stop: &CancellationToken) {
        let mut sampled: Option<Instant> = None;
        let mut swept = HashMap::new();
        let mut before = Duration::ZERO;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let runners = watcher.runners.all();
            let healthy = runners.iter().all(|runner| runner.health() == Health::Healthy);
            let outdated = is_outdated(sampled, watcher.activity.last(), healthy);
            if outdated || !watcher.lets_sleep() {
                self.sweep(&runners, &mut swept).await;
            }
            if outdated {
                sampled = Some(begun);
                if let Err(error) = self.count(watcher, &runners).await {
                    telemetry::database_error(&error, error.kind());
                }
            }
            // (Once may have been a lock.)
            let took = begun.elapsed();
            let usual = if outdated { std::mem::replace(&mut before, took).min(took) } else { took };
            pause(INTERVAL.max(usual * SHARE), stop).await;
        }
    }

    /// Finds rows of dead letters that were repaired, or deleted, some at a time.
    async fn sweep(&self, runners: &[Arc<SignalRunner>], swept: &mut HashMap<String, i64>) {
        let is_held = |counts: SideCounts| counts.dead + counts.undeleted > 0;
        for runner in runners.iter().filter(|runner| is_held(self.get(runner.name()).side_counts)) {
            let after = swept.remove(runner.name()).unwrap_or_default();
            match runner.flusher.table.sweep(after, SWEPT).await {
                Ok((next, found)) => {
                    swept.extend(next.map(|next| (runner.name().to_owned(), next)));
                    if found {
                        runner.wake("sweep");
                    }
                }
                Err(error) => telemetry::database_error(&error, error.kind()),
            }
        }
    }

    async fn count(&self, watcher: &OutboxWatcher, runners: &[Arc<SignalRunner>]) -> Result<(), Error> {
        let side_counts = watcher.outbox.side_counts().await?;
        for runner in runners {
            // A missing table is reported by the workers of its type.
            let Ok(pending) = watcher.outbox.pending(&runner.config.source).await else { continue };
            let head = runner.flusher.table.session().head().await?;
            let side_counts = side_counts.get(runner.name()).copied().unwrap_or_default();
            let sample = self.get(runner.name()).followed_by(pending, side_counts, head);
            let SideCounts { deferred, dead, undeleted } = side_counts;
            telemetry::sampled(runner.name(), pending, sample.oldest(), telemetry::Held { deferred, dead, undeleted });
            self.put(runner.name(), sample);
        }
        Ok(())
    }
}

/// Returns whether the backlog may have changed: something was claimed since the last sample, or cannot be sent.
fn is_outdated(sampled: Option<Instant>, claimed: Instant, healthy: bool) -> bool {
    !healthy || sampled.is_none_or(|sampled| claimed > sampled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_relay_counts_nothing() {
        let before = Instant::now();
        let after = before + INTERVAL;
        assert!(is_outdated(None, before, true));
        assert!(!is_outdated(Some(after), before, true));
        assert!(is_outdated(Some(before), after, true));
        assert!(is_outdated(Some(after), before, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_row_is_as_old_as_it_has_been_the_first() {
        let mut sample = Sample::default();
        for (first, oldest) in [(Some("1"), 0), (Some("1"), 15), (Some("1"), 30), (Some("2"), 0), (None, 0), (Some("2"), 0)] {
            tokio::time::advance(INTERVAL).await;
            sample = sample.followed_by(7, SideCounts::default(), first.map(str::to_owned));
            assert_eq!(sample.oldest().as_secs(), oldest, "{first:?}");
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!((sample.oldest(), sample.pending), (INTERVAL, 7));
    }
}
