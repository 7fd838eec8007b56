//! `plugin …`: creates, builds, tests and inspects plugins, and swaps those of a running relay.
//!
//! Does no work itself. Next: `commands::plugin`.

#[cfg(feature = "author")]
use std::path::PathBuf;

use clap::Subcommand;
#[cfg(feature = "author")]
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::Json;
#[cfg(feature = "admin")]
use crate::commands::plugin::swap::Change;
use crate::commands::{self, Exit, plugin};
#[cfg(feature = "author")]
use signalbus_authoring::language::Language;

#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    #[cfg(feature = "author")]
    /// Create a project that builds, and passes `plugin test`, as it is
    New {
        /// Folder to create; its last part is the name of the plugin
        #[arg(value_name = "NAME")]
        folder: PathBuf,
        /// Language to write the plugin in
        #[arg(long, short, value_name = "LANGUAGE", value_parser = languages())]
        lang: Language,
    },
    #[cfg(feature = "author")]
    /// Build a project with its language's own tools, and write plugin.wasm
    Build {
        /// Project folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// File to write the component to [default: plugin.wasm in the project]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    #[cfg(feature = "author")]
    /// Show what a plugin needs to run: contract, imports, grants, size, memory
    Check {
        /// Component file
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Show plugin metadata: name, version, producers, WIT, digest
    Inspect {
        /// Component file
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Run a dead letter through a plugin; nothing is published, and the dead letter stays
    Replay {
        /// ID of the dead letter
        id: i64,
        /// Component file to use instead of the signal type's plugin
        #[arg(long, value_name = "FILE")]
        plugin: Option<PathBuf>,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Test a plugin against the contract and rows of your own, with a bus that only records
    Test {
        /// Component file
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        /// File with rows, settings and expectations [default: rows.json beside the plugin, if it exists]
        #[arg(long, value_name = "FILE")]
        rows: Option<PathBuf>,
        /// Show messages, outcomes and logs of every case, not only of those that fail
        #[arg(long)]
        show: bool,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "admin")]
    /// Reload a signal type's plugin from its file
    Swap {
        /// Signal type
        name: String,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "admin")]
    /// Roll back to the plugin before the last swap
    Rollback {
        /// Signal type
        name: String,
        #[command(flatten)]
        output: Json,
    },
}

/// Accepts a language by its name or its short name.
#[cfg(feature = "author")]
fn languages() -> impl TypedValueParser<Value = Language> {
    let names = Language::ALL.map(|language| PossibleValue::new(language.name()).aliases(language.short_name()));
    PossibleValuesParser::new(names).try_map(|name| Language::from_name(&name).ok_or("unknown language"))
}

pub(super) async fn dispatch_plugin(config: &std::path::Path, command: &Plugin) -> Result<Exit, commands::Failure> {
    match command {
        #[cfg(feature = "author")]
        Plugin::New { folder, lang } => plugin::new::run(folder, *lang),
        #[cfg(feature = "author")]
        Plugin::Build { folder, output } => plugin::build::run(folder, output.as_deref()),
        #[cfg(feature = "author")]
        Plugin::Check { plugin, output } => plugin::inspect::check(plugin, output.output()).await,
        #[cfg(feature = "author")]
        Plugin::Inspect { plugin, output } => plugin::inspect::inspect(plugin, output.output()),
        #[cfg(feature = "author")]
        Plugin::Replay { id, plugin, output } => plugin::replay::run(config, *id, plugin.clone(), output.output()).await,
        #[cfg(feature = "author")]
        Plugin::Test { plugin, rows, show, output } => {
            let (plugin, rows) = (plugin.clone(), rows.clone());
            plugin::test::run(plugin::test::Request { plugin, rows, show: *show, output: output.output() }).await
        }
        #[cfg(feature = "admin")]
        Plugin::Swap { name, output } => plugin::swap::change(config, name, Change::Swap, output.output()).await,
        #[cfg(feature = "admin")]
        Plugin::Rollback { name, output } => plugin::swap::change(config, name, Change::RollBack, output.output()).await,
    }
}
