//! Signal types that do not run: parked, and opened again until they do.
//!
//! Never keeps the others waiting. Next: `parked`, which says when one is due.

use std::sync::Arc;
use std::time::Duration;

use super::Live;
use crate::config::SignalConfig;
use crate::flusher::{Patience, pause};
use crate::runner::SignalRunner;
use crate::{Opened, Refusal, open_one};
use signalbus_telemetry as telemetry;

/// How often to look for signal types that are to be opened again.
const TENDING: Duration = Duration::from_millis(100);

impl Live {
    async fn open_again(&self, signal: &SignalConfig) -> Result<Opened, Refusal> {
        self.files.note(signal);
        open_one(&self.outbox, &self.engine, &self.buses, signal, Patience::FOREVER).await
    }

    fn park(&self, signal: &SignalConfig, faults: Vec<String>) {
        let words = faults.join("; ");
        if self.parked.put(signal, faults) {
            telemetry::parked(signal.name(), &words);
        }
    }

    /// Opens again what is parked, and what has an altered table, until stopped.
    pub(super) async fn tend(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let altered = self.runners.all().into_iter().filter(|runner| runner.take_altered());
            let altered = altered.map(|runner| (runner.config.clone(), Some(runner)));
            let parked = self.parked.take_due().into_iter().map(|config| (config, None));
            for (config, runner) in altered.chain(parked) {
                let live = self.clone();
                self.tasks.spawn(async move { live.stop.run_until_cancelled(live.start_again(config, runner)).await });
            }
            pause(TENDING, &self.stop).await;
        }
    }

    /// Starts a signal type again, or parks it.
    async fn start_again(&self, config: SignalConfig, runner: Option<Arc<SignalRunner>>) {
        let opened = self.open_again(&config).await;
        if let Err(Refusal::Database(error)) = &opened
            && (error.is_unreachable() || error.is_passing())
        {
            telemetry::database_error(error, error.kind());
            self.parked.put_back(&config);
            return;
        }
        let _changing = self.changing.lock().await;
        let current = match &runner {
            Some(runner) => self.runners.find(config.name()).is_some_and(|found| Arc::ptr_eq(&found, runner)),
            None => self.parked.holds(&config),
        };
        if !current {
            return;
        }
        if let Some(runner) = runner {
            self.runners.remove(config.name());
            runner.stop.cancel();
            runner.ended.cancelled().await;
        }
        match opened {
            Ok(opened) => {
                // At no time does it seem to be neither here nor there.
                self.start_runners(std::slice::from_ref(&config), vec![opened]);
                if self.parked.remove(config.name()) {
                    telemetry::unparked(config.name());
                }
            }
            Err(Refusal::Faults(faults)) => self.park(&config, faults),
            Err(Refusal::Database(error)) => self.park(&config, vec![format!("{}: {error}", config.place)]),
        }
        self.opened.notify_one();
    }
}
