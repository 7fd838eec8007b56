//! `check`: reports every problem in configuration, database and plugins, each with its place and a
//! remedy.
//!
//! It sends nothing. The problems are found in `signalbus_relay::config`, `signalbus_outbox` and
//! `signalbus_plugin`; here is only how they are shown.

use std::path::Path;

use super::{Exit, Failure, open, print, unreachable};
use signalbus_outbox::{Error, Fault, LeftLetters, Outbox, Undeleted};
use signalbus_plugin::cache_folder;
use signalbus_plugin::{Engine, Plugin};
use signalbus_relay::config::{Config, SignalConfig};

/// The problems found so far.
#[derive(Default)]
struct Report {
    errors: Vec<String>,
    warnings: Vec<String>,
    notes: Vec<String>,
    /// The database could not be reached: its tables were not checked.
    unreachable: Option<Error>,
}

pub(crate) async fn run(path: &Path) -> Result<Exit, Failure> {
    let (config, errors) = Config::examine(path).map_err(|fault| Failure::new(Exit::Configuration, fault))?;
    let mut report = Report { errors, ..Report::default() };
    if config.signals.is_empty() {
        let place = path.display();
        report.warnings.push(format!("{place}: no signal types are configured; add a `[signals.NAME]` section with a `plugin`"));
    }
    report.shared_tables(&config);
    report.tables(&config).await;
    report.plugins(&config).await?;
    Ok(report.print(&config))
}

impl Report {
    /// Warns about tables that several types share: claims are kept per type, so a row may be sent twice.
    fn shared_tables(&mut self, config: &Config) {
        for (n, signal) in config.signals.iter().enumerate() {
            let table = &signal.source.table;
            if let Some(other) = config.signals[..n].iter().find(|other| other.source.table == *table) {
                let (name, other, place) = (signal.name(), other.name(), &signal.place);
                self.warnings.push(format!(
                    "{place}: signal type \"{name}\": table \"{table}\" is also the table of \"{other}\", so its rows may go to either or both; \
                     give each type its own table"
                ));
            }
        }
    }

    async fn tables(&mut self, config: &Config) {
        // A missing or invalid URL has been reported already.
        if config.database.url.is_empty() {
            return;
        }
        let outbox = match open(config) {
            Ok(outbox) => outbox,
            Err(fault) => return self.errors.extend(fault.texts),
        };
        if let Err(error) = outbox.require_schema().await {
            self.add(None, error);
        }
        for signal in &config.signals {
            if self.unreachable.is_some() {
                return;
            }
            self.table(&outbox, signal).await;
        }
        let left = outbox.left_letters().await.unwrap_or_default();
        self.warnings.extend(left.into_iter().map(|LeftLetters { signal, count, .. }| {
            format!(
                "signal type \"{signal}\": {count} dead letters of an earlier version are not back in their table; run \
                 `signalbus migrate` to try again, and to see why"
            )
        }));
        let undeleted = outbox.undeleted().await.unwrap_or_default();
        self.warnings.extend(undeleted.into_iter().map(|Undeleted { signal, count, reason }| {
            format!("signal type \"{signal}\": {count} rows were sent and could not be deleted: {reason}")
        }));
    }

    async fn table(&mut self, outbox: &Outbox, signal: &SignalConfig) {
        self.notes.push(format!("{}: ids rest on {}", signal.name(), outbox.id_basis(&signal.source)));
        let faults = match outbox.faults(&signal.source).await {
            Ok(faults) => faults,
            Err(error) => return self.add(Some(&signal.place), error),
        };
        for fault in faults {
            match fault {
                Fault::Fatal(text) => self.errors.push(format!("{}: {text}", signal.place)),
                Fault::Doubtful(text) => self.warnings.push(format!("{}: {text}", signal.place)),
            }
        }
    }

    fn add(&mut self, place: Option<&str>, error: Error) {
        match (error, place) {
            (error @ Error::Unreachable(_), _) => self.unreachable = Some(error),
            (error, Some(place)) => self.errors.push(format!("{place}: {error}")),
            (error, None) => self.errors.push(error.to_string()),
        }
    }

    async fn plugins(&mut self, config: &Config) -> Result<(), Failure> {
        let engine =
            Engine::new(cache_folder(), super::compiler()).map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))?;
        for signal in config.signals.iter().filter(|signal| !signal.plugin.as_os_str().is_empty()) {
            if let Err(error) = Plugin::load(&engine, &signal.spec()).await {
                self.errors.push(format!("{}: signal type \"{}\": {error}", signal.place, signal.name()));
            }
        }
        Ok(())
    }

    fn print(self, config: &Config) -> Exit {
        for error in &self.errors {
            print(format_args!("error: {error}"));
        }
        if let Some(error) = &self.unreachable {
            print(format_args!("error: {}", unreachable(error)));
        }
        for warning in &self.warnings {
            print(format_args!("warning: {warning}"));
        }
        if !self.errors.is_empty() {
            return Exit::Configuration;
        }
        if self.unreachable.is_some() {
            return Exit::Unreachable;
        }
        for note in &self.notes {
            print(note);
        }
        let names: Vec<&str> = config.signals.iter().map(SignalConfig::name).collect();
        if !names.is_empty() {
            print(format_args!("ready to send: {}", names.join(", ")));
        }
        Exit::Done
    }
}
