//! Retries of what the database could not be asked, for as long as a worker is patient.
//!
//! Never retries what the database has refused. Next: `flusher`, which retries claims and settles.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Halt, pause};
use signalbus_outbox::Error;
use signalbus_telemetry as telemetry;

/// Retries of a database operation, limited in time.
pub(super) struct DatabaseRetry {
    patience: Duration,
    pub(super) since: Option<Instant>,
    tries: u32,
}

impl DatabaseRetry {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, since: None, tries: 0 }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// Gives up if the time is over, or at once if the database refused.
    pub(super) async fn wait(&mut self, error: Error, stop: &CancellationToken) -> Result<(), Halt> {
        let since = *self.since.get_or_insert_with(Instant::now);
        // Who has all the time waits for space, too.
        let later = error.is_exhausted() && self.patience == Duration::MAX;
        let hopeless = !(error.is_unreachable() || error.is_passing() || later);
        if hopeless || since.elapsed() >= self.patience {
            return Err(Halt::Database(error));
        }
        telemetry::database_error(&error, error.kind());
        self.tries += 1;
        pause(Duration::from_millis(50) * self.tries.min(20), stop).await;
        Ok(())
    }

    pub(super) fn succeeded(&mut self) {
        if self.since.take().is_some() {
            telemetry::database_recovered();
        }
        self.tries = 0;
    }
}
