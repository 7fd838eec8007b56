//! Reloading the configuration of a running relay.
//!
//! Changes everything or nothing; the old workers of a type have settled before its new ones claim. Next: `config`.

use std::sync::{Arc, PoisonError};

use futures::future::join_all;

use super::{Live, autoflushed};
use crate::Refusal;
use crate::config::{Config, SignalConfig};
use crate::runner::SignalRunner;
use signalbus_telemetry as telemetry;

impl Live {
    /// Reloads the configuration: starts, changes and stops signal types; the others keep running.
    /// Also loads changed plugin files.
    ///
    /// # Errors
    /// Every problem at once; nothing has changed then.
    pub async fn reload(&self) -> Result<(), Vec<String>> {
        let _changing = self.changing.lock().await;
        let reloaded = self.change().await;
        match &reloaded {
            Ok(()) => self.files.load_changed(&self.runners).await,
            Err(faults) => telemetry::reload_refused(faults),
        }
        reloaded
    }

    async fn change(&self) -> Result<(), Vec<String>> {
        let wanted = Config::read(&self.path)?;
        let running = self.config();
        if (&wanted.database, &wanted.admin) != (&running.database, &running.admin) {
            let place = self.path.display();
            return Err(vec![format!("{place}: `database` and `admin` cannot change while the relay runs; restart it")]);
        }
        let signals = autoflushed(&wanted);
        let same = |signal: &SignalConfig| {
            let running = self.runners.find(signal.name());
            running.is_some_and(|runner| runner.config.clone().at(&signal.place) == *signal) || self.parked.holds(signal)
        };
        let fresh: Vec<SignalConfig> = signals.iter().filter(|signal| !same(signal)).cloned().collect();
        self.engine.keep_shares(signals.iter().map(SignalConfig::spec));
        let opened = self.open(&fresh).await.map_err(|refusal| {
            self.engine.keep_shares(autoflushed(&running).iter().map(SignalConfig::spec));
            match refusal {
                Refusal::Faults(faults) => faults,
                Refusal::Database(error) => vec![error.to_string()],
            }
        })?;
        let names = |runners: &[Arc<SignalRunner>]| runners.iter().map(|runner| runner.name().to_owned()).collect::<Vec<_>>();
        let leaves = |runner: &Arc<SignalRunner>| signals.iter().all(|signal| signal.name() != runner.name());
        let changes = |runner: &Arc<SignalRunner>| fresh.iter().any(|signal| signal.name() == runner.name());
        let runners = self.runners.all();
        let leaving: Vec<_> = runners.iter().filter(|runner| leaves(runner)).cloned().collect();
        let changing: Vec<_> = runners.iter().filter(|runner| changes(runner)).cloned().collect();
        let (left, changed) = (names(&leaving), names(&changing));
        let started = fresh.iter().map(|signal| signal.name().to_owned()).filter(|name| !changed.contains(name));
        let started: Vec<_> = started.collect();
        // The old workers must have settled before the new ones claim.
        join_all(leaving.iter().chain(&changing).map(|runner| async {
            self.runners.remove(runner.name());
            runner.stop.cancel();
            runner.ended.cancelled().await;
        }))
        .await;
        for name in self.parked.names() {
            if !signals.iter().any(|signal| self.parked.holds(signal) && *signal.name() == name) {
                self.parked.remove(&name);
            }
        }
        self.parked.hurry();
        self.start_runners(&fresh, opened);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        telemetry::reloaded(&started, &left, &changed);
        Ok(())
    }
}
