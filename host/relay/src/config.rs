//! The configuration file: parses and validates it, and reports every problem at once.
//!
//! Touches neither database nor plugins: whether tables and components fit is checked when they are
//! opened. Next: `reader`, which finds values and their places.

mod admin;
mod connections;
mod database;
mod grants;
mod reader;
mod signal;

use std::path::Path;

pub use admin::Admin;
use admin::admin;
use connections::connections;
use database::database;
pub use database::{Database, sqlite_url};
use reader::{Faults, Section};
pub use signal::SignalConfig;
use signal::{SIGNAL_KEYS, signal};
use signalbus_core::suggest;

/// A parsed `signalbus.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: Database,
    pub admin: Admin,
    /// Signal types, in the order of the file.
    pub signals: Vec<SignalConfig>,
}

impl Config {
    /// Reads a configuration file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// Every problem in the file, each with its line and column.
    pub fn read(path: &Path) -> Result<Self, Vec<String>> {
        match Self::examine(path).map_err(|fault| vec![fault])? {
            (config, faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(faults),
        }
    }

    /// Reads a configuration file as far as possible, and returns it with every problem found. Missing
    /// and invalid values are empty or have their defaults.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn examine(path: &Path) -> Result<(Self, Vec<String>), String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("{}: {error}; `signalbus init` creates a starter project, `--config` names another file", path.display())
        })?;
        Ok(Self::parse(path, &text))
    }

    fn parse(path: &Path, text: &str) -> (Self, Vec<String>) {
        let mut faults = Faults::new(path, text);
        let file = reader::parse(text, &mut faults);
        let root = Section::new("", 0, file.get_ref());
        root.refuse_unknown(&["database", "admin", "defaults", "signals", "connections", "http"], &mut faults);
        let folder = path.parent().unwrap_or(Path::new(""));
        let database = database(&root, folder, &mut faults);
        let connections = connections(&root, folder, &mut faults);
        let admin = admin(&root, &mut faults);
        let authorities = grants::authorities(&root, folder, &mut faults);
        let defaults = root.section("defaults", &mut faults);
        if let Some(defaults) = &defaults {
            defaults.refuse_unknown(SIGNAL_KEYS, &mut faults);
        }
        let mut signals = Vec::new();
        if let Some(section) = root.section("signals", &mut faults) {
            for (name, _) in section.entries() {
                if let Some(own) = section.section(&name, &mut faults) {
                    own.refuse_unknown(SIGNAL_KEYS, &mut faults);
                    let merged = own.or(defaults.as_ref());
                    let mut signal = signal(&name, &merged, folder, &connections, &mut faults);
                    signal.grants.ca.clone_from(&authorities);
                    signals.push(signal);
                }
            }
        }
        (Self { database, admin, signals }, faults.into_texts())
    }

    /// Returns the signal types called `names`, or all of them if there are no names, except the excluded
    /// ones.
    ///
    /// # Errors
    /// A name is not a signal type.
    pub fn chosen(&self, names: &[String], exclude: &[String]) -> Result<Vec<SignalConfig>, String> {
        let known = || self.signals.iter().map(SignalConfig::name);
        for name in names.iter().chain(exclude) {
            if known().all(|known| known != name) {
                let all: Vec<&str> = known().collect();
                let nearest = suggest::nearest(name, known());
                return Err(format!("unknown signal type \"{name}\"{nearest} (known: {})", all.join(", ")));
            }
        }
        let chosen = |signal: &&SignalConfig| {
            let name = signal.name().to_owned();
            (names.is_empty() || names.contains(&name)) && !exclude.contains(&name)
        };
        Ok(self.signals.iter().filter(chosen).cloned().collect())
    }
}

fn texts(section: &Section<'_>, key: &str, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    section.section(key, faults).map(|section| section.texts(faults)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let (config, faults) = Config::parse(Path::new("dir/signalbus.toml"), text);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    #[test]
    fn a_short_file_has_sensible_defaults() {
        let config = parse("[database]\nurl='sqlite://outbox.db'\n[signals.OrderPlaced]\nplugin='a.wasm'\n").unwrap();
        assert_eq!(config.database.url, "sqlite://dir/outbox.db");
        let signal = &config.signals[0];
        assert_eq!(signal.source.table, "order_placed");
        assert_eq!(signal.plugin, Path::new("dir/a.wasm"));
        assert_eq!((signal.burst_count, signal.concurrency), (500, 4));
        assert_eq!(signal.policy.max_attempts, 20);
    }

    #[test]
    fn signals_inherit_the_defaults_key_by_key() {
        let config = parse(
            "[database]\nurl='postgres://h/d'\n[defaults]\nplugin='a.wasm'\nburst_count=7\n[defaults.settings]\nx=1\ny='b'\n\
             [signals.B]\n[signals.B.settings]\ny='c'\n[signals.A]\nburst_count=9\n",
        )
        .unwrap();
        let names: Vec<&str> = config.signals.iter().map(SignalConfig::name).collect();
        assert_eq!(names, ["B", "A"]);
        assert_eq!((config.signals[0].burst_count, config.signals[1].burst_count), (7, 9));
        let settings = [("y".to_owned(), "c".to_owned()), ("x".to_owned(), "1".to_owned())];
        assert_eq!(config.signals[0].grants.settings, settings);
    }

    #[test]
    fn every_problem_is_reported_with_its_place() {
        let faults = parse(
            "[database]\nurl='oracle://x'\n[signals.A]\nplugin='a.wasm'\nburst_cuont=1\ntimeout='soon'\nconcurrency=0\n\
             [signals.A.grants]\nconnections=['bus']\n[signals.B]\n[signals.B.retry.backoff]\nfirst='1h'\nmax='1s'\n",
        )
        .unwrap_err();
        let expected = [
            "dir/signalbus.toml:2:5: `database.url` must begin with sqlite://, postgres:// or mysql://",
            "dir/signalbus.toml:5:1: unknown key `signals.A.burst_cuont`; did you mean \"burst_count\"?",
            "dir/signalbus.toml:6:9: `signals.A.timeout`: invalid duration \"soon\"; write \"500ms\", \"30s\", \"10m\" or \"1h\"",
            "dir/signalbus.toml:7:13: `signals.A.concurrency` must be an integer of at least 1",
            "dir/signalbus.toml:9:14: `signals.A.grants.connections`: `[connections.bus]` is not defined",
        ];
        assert_eq!(&faults[..5], expected);
        assert_eq!(faults.len(), 7, "{faults:#?}");
    }

    #[test]
    fn side_tables_can_have_a_schema() {
        let of = |url: &str, name: &str| {
            parse(&format!("[database]\nurl='{url}'\nside_schema='{name}'\n[signals.A]\nplugin='a'\nburst_bytes='1KiB'\n"))
        };
        let config = of("postgres://h/d", "own-1").unwrap();
        assert_eq!(config.database.side_schema.as_deref(), Some("own-1"));
        assert_eq!(config.signals[0].source.burst_bytes, Some(1024));
        assert!(of("sqlite://a.db", "own").unwrap_err()[0].ends_with("SQLite has no schemas; remove it"));
        assert!(of("mysql://h/d", "a.b").unwrap_err()[0].ends_with("must have 1 to 64 letters, digits, `-` or `_`"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let config =
            parse("[database]\nurl='mysql://u:topsecret@h/d'\n[signals.A]\nplugin='a'\n[signals.A.secrets]\nkey='topsecret'\n")
                .unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
    }
}
