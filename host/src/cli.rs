//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "author")]
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(any(feature = "author", feature = "admin"))]
use crate::commands::plugin;
#[cfg(feature = "admin")]
use crate::commands::plugin::swap::Change;
use crate::commands::{self, Exit, Migration, Output, Selection};
use crate::logging;
#[cfg(feature = "author")]
use signalbus_authoring::language::Language;
use signalbus_relay::Extent;

/// The transactional outbox relay: sends the rows of your tables through Wasm plugins, and deletes
/// a row only once its plugin has said that it is sent.
#[derive(Debug, Parser)]
#[command(name = "signalbus", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file
    #[arg(long, global = true, env = "SIGNALBUS_CONFIG", default_value = "signalbus.toml", value_name = "FILE")]
    config: PathBuf,
    /// The form of log lines, on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a starter project: signalbus.toml, an SQLite outbox with sample signals, plugins
    Init {
        /// The folder to make it in
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// How many sample signals of each type
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        signals: u32,
    },
    /// Look for every fault: configuration, database, side tables, indexes, plugins, grants
    Check,
    /// Create or upgrade the side tables
    Migrate {
        /// Only print the SQL
        #[arg(long)]
        print: bool,
        /// PostgreSQL: let triggers announce new signals, so that `run` sends them at once. They slow
        /// down many writers that commit at the same time
        #[arg(long)]
        notify: bool,
    },
    /// Send every autoflush signal type, until told to stop
    Run {
        /// How long to finish and settle what is in flight, once told to stop
        #[arg(long, default_value_t = signalbus_relay::GRACE.as_secs_f64(), value_name = "SECONDS")]
        grace: f64,
    },
    /// Send the signals that are pending now, after a wait in which faster senders can go first
    Flush {
        #[command(flatten)]
        flush: FlushOptions,
        /// How long to wait before sending
        #[arg(short, long, default_value_t = 3.0, value_name = "SECONDS", allow_negative_numbers = true)]
        wait: f64,
    },
    /// Send a huge backlog, with as many processes at once as you like
    Flushmany {
        #[command(flatten)]
        flush: FlushOptions,
    },
    /// Send in the order of `order_by`
    Flushordered {
        #[command(flatten)]
        flush: FlushOptions,
    },
    /// List the signal types
    Signals {
        #[command(flatten)]
        output: Json,
    },
    /// Tell how many signals wait, by type
    Pending {
        #[command(flatten)]
        output: Json,
    },
    #[cfg(any(feature = "author", feature = "admin"))]
    /// Write plugins, try them out, and change those of the relay that runs
    Plugin {
        #[command(subcommand)]
        command: Plugin,
    },
    /// Look after the signals that could not be sent
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

#[derive(Debug, Args)]
struct FlushOptions {
    /// The signal types to send; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A signal type to leave out
    #[arg(short, long, value_name = "NAME")]
    exclude: Vec<String>,
    /// Start again every so many seconds, until told to stop
    #[arg(short, long, value_name = "SECONDS")]
    repeat: Option<f64>,
    #[command(flatten)]
    output: Json,
}

#[derive(Clone, Copy, Debug, Args)]
struct Json {
    /// Print one JSON document and nothing else
    #[arg(long)]
    json: bool,
}

#[cfg(any(feature = "author", feature = "admin"))]
#[derive(Debug, Subcommand)]
enum Plugin {
    #[cfg(feature = "author")]
    /// Write a new project: it builds, and passes `plugin test`, as it is
    New {
        /// Its folder, which is its name too
        #[arg(value_name = "NAME")]
        folder: PathBuf,
        #[arg(long, short, value_name = "LANGUAGE", value_parser = languages())]
        lang: Language,
    },
    #[cfg(feature = "author")]
    /// Build a project with the tools of its language, and leave plugin.wasm
    Build {
        /// The project
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The component's file
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    #[cfg(feature = "author")]
    /// Tell what it takes to run a plugin: contract, imports, grants, size, memory
    Check {
        /// The component
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Tell what a plugin says of itself: name, version, producers, WIT, digest
    Inspect {
        /// The component
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Run a dead letter through a plugin; nothing is published, and the letter stays
    Replay {
        /// The dead letter's number
        id: i64,
        /// The component; else that of the signal type
        #[arg(long, value_name = "FILE")]
        plugin: Option<PathBuf>,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "author")]
    /// Try a plugin out: the contract, and rows of your own, with a bus that only records
    Test {
        /// The component
        #[arg(value_name = "FILE", default_value = "plugin.wasm")]
        plugin: PathBuf,
        /// Rows, settings and what is expected; `rows.json` beside the plugin is taken by itself
        #[arg(long, value_name = "FILE")]
        rows: Option<PathBuf>,
        /// Show the messages, outcomes and logs of every case, not only of those that fail
        #[arg(long)]
        show: bool,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "admin")]
    /// Load a signal type's plugin from its file again
    Swap {
        /// The signal type
        name: String,
        #[command(flatten)]
        output: Json,
    },
    #[cfg(feature = "admin")]
    /// Go back to the plugin before the last swap
    Rollback {
        /// The signal type
        name: String,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Subcommand)]
enum Dead {
    /// List dead letters, the oldest first
    List {
        /// Only these signal types
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
        #[command(flatten)]
        output: Json,
    },
    /// Show a dead letter with its row
    Show {
        id: i64,
        #[command(flatten)]
        output: Json,
    },
    /// Put dead letters back into their tables, to be sent again
    Redrive {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        output: Json,
    },
    /// Delete dead letters for ever
    Discard {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Letters {
    /// The numbers of the dead letters
    ids: Vec<i64>,
    /// All dead letters of a signal type
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

/// A language by its name, or by its short one.
#[cfg(feature = "author")]
fn languages() -> impl TypedValueParser<Value = Language> {
    let names = Language::ALL.map(|language| PossibleValue::new(language.name()).aliases(language.short_name()));
    PossibleValuesParser::new(names).try_map(|name| Language::from_name(&name).ok_or("unknown language"))
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { Exit::Usage.into() };
        }
    };
    logging::start(match cli.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logging::failed(&format!("the runtime can't start: {error}"));
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(dispatch(&cli));
    // Nothing that still compiles or connects in the background may hold up the exit.
    runtime.shutdown_background();
    signalbus_bus::end();
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print().into(),
    }
}

async fn dispatch(cli: &Cli) -> Result<Exit, commands::Failure> {
    let config = cli.config.as_path();
    match &cli.command {
        Command::Init { folder, signals } => commands::init::run(folder, *signals).await,
        Command::Check => commands::check::run(config).await,
        Command::Migrate { print, notify } => commands::migrate(config, Migration { print: *print, notify: *notify }).await,
        Command::Run { grace } => commands::run::run(config, seconds(*grace)).await,
        Command::Flush { flush, wait } => {
            let extent = Extent::Pending { wait: seconds(*wait) };
            commands::flush::run(config, &flush.selection(), extent).await
        }
        Command::Flushmany { flush } | Command::Flushordered { flush } => {
            commands::flush::run(config, &flush.selection(), Extent::All).await
        }
        Command::Signals { output } => commands::signals(config, output.output()),
        Command::Pending { output } => commands::pending(config, output.output()).await,
        #[cfg(any(feature = "author", feature = "admin"))]
        Command::Plugin { command } => of_plugin(config, command).await,
        Command::Dead { command } => dead(config, command).await,
    }
}

#[cfg(any(feature = "author", feature = "admin"))]
async fn of_plugin(config: &std::path::Path, command: &Plugin) -> Result<Exit, commands::Failure> {
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

async fn dead(config: &std::path::Path, command: &Dead) -> Result<Exit, commands::Failure> {
    match command {
        Dead::List { names, limit, output } => commands::dead::list(config, names, *limit, output.output()).await,
        Dead::Show { id, output } => commands::dead::show(config, *id, output.output()).await,
        Dead::Redrive { letters, output } => commands::dead::redrive(config, &letters.choice(), output.output()).await,
        Dead::Discard { letters, output } => commands::dead::discard(config, &letters.choice(), output.output()).await,
    }
}

impl FlushOptions {
    fn selection(&self) -> Selection {
        Selection {
            names: self.names.clone(),
            exclude: self.exclude.clone(),
            repeat: self.repeat.map(seconds),
            output: self.output.output(),
        }
    }
}

impl Letters {
    fn choice(&self) -> commands::dead::Choice {
        match &self.signal {
            Some(signal) => commands::dead::Choice::OfType(signal.clone()),
            None if self.all => commands::dead::Choice::All,
            None => commands::dead::Choice::Ids(self.ids.clone()),
        }
    }
}

impl Json {
    fn output(self) -> Output {
        if self.json { Output::Json } else { Output::Text }
    }
}

/// Negative waits count as none.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
