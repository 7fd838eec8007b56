//! The command line: what each command, option and argument is called, and its help text.
//!
//! The only module that knows clap. It does no work itself: every command goes on in `commands`.

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
use signalbus_plugin::{Job, Place, Work};
use signalbus_relay::Extent;

/// A transactional outbox relay: sends the rows of your tables through WebAssembly plugins, and
/// deletes a row only after its plugin has reported it sent.
#[derive(Debug, Parser)]
#[command(name = "signalbus", version, arg_required_else_help = true)]
struct Cli {
    /// Configuration file
    #[arg(long, global = true, env = "SIGNALBUS_CONFIG", default_value = "signalbus.toml", value_name = "FILE")]
    config: PathBuf,
    /// Format of log lines on standard error
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
    /// Create a starter project: signalbus.toml, an SQLite outbox with sample signals, plugins
    Init {
        /// Folder to create it in
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Number of sample signals of each type
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        signals: u32,
    },
    /// Validate configuration, database, side tables, indexes, plugins and grants; report every problem
    Check,
    /// Create or upgrade the side tables
    Migrate {
        /// Print the SQL and change nothing
        #[arg(long)]
        print: bool,
        /// PostgreSQL: also create triggers that announce new signals, so that `run` sends them at once.
        /// They slow down writers that commit concurrently
        #[arg(long)]
        notify: bool,
    },
    /// Run the relay: send every autoflush signal type until told to stop
    Run {
        /// How long to wait for work in flight when stopping
        #[arg(long, default_value_t = signalbus_relay::GRACE.as_secs_f64(), value_name = "SECONDS")]
        grace: f64,
    },
    /// Send the signals that are pending now, after a wait that lets faster senders go first
    Flush {
        #[command(flatten)]
        flush: FlushOptions,
        /// How long to wait before sending
        #[arg(short, long, default_value_t = 3.0, value_name = "SECONDS", allow_negative_numbers = true)]
        wait: f64,
    },
    /// Send a huge backlog; run as many processes at once as you like
    Flushmany {
        #[command(flatten)]
        flush: FlushOptions,
    },
    /// Send in the order given by `order_by`
    Flushordered {
        #[command(flatten)]
        flush: FlushOptions,
    },
    /// List the signal types
    Signals {
        #[command(flatten)]
        output: Json,
    },
    /// Show pending counts by type
    Pending {
        #[command(flatten)]
        output: Json,
    },
    #[cfg(any(feature = "author", feature = "admin"))]
    /// Create, build, test and inspect plugins; swap those of a running relay
    Plugin {
        #[command(subcommand)]
        command: Plugin,
    },
    /// List, inspect, redrive and discard dead letters
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
    #[command(hide = true)]
    Worker(Worker),
}

/// Started by the relay itself, for files that it does not trust.
#[derive(Debug, Args)]
struct Worker {
    #[command(subcommand)]
    task: Task,
    #[arg(long, global = true, default_value_t = 1 << 30)]
    memory: u64,
    #[arg(long, global = true, default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Task {
    Compile {
        #[arg(long)]
        cache: PathBuf,
        #[arg(long)]
        scratch: PathBuf,
        #[arg(long)]
        frugal: bool,
    },
    Locate {
        places: Vec<Place>,
    },
}

impl Worker {
    fn work(self) -> Work {
        let job = match self.task {
            Task::Compile { cache, scratch, frugal } => Job::Compile { cache, scratch, frugal },
            Task::Locate { places } => Job::Locate { places },
        };
        Work { job, memory: self.memory, seconds: self.seconds }
    }
}

#[derive(Debug, Args)]
struct FlushOptions {
    /// Signal types to send [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Signal type to skip; can be repeated
    #[arg(short, long, value_name = "NAME")]
    exclude: Vec<String>,
    /// Flush again every SECONDS, until told to stop
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

#[derive(Debug, Subcommand)]
enum Dead {
    /// List dead letters, oldest first
    List {
        /// Only these signal types
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        filter: DeadFilter,
        /// Count them by their reasons instead; numbers and ids in a reason do not matter
        #[arg(long)]
        groups: bool,
        /// Maximum number to list
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
        #[command(flatten)]
        output: Json,
    },
    /// Show a dead letter and its row
    Show {
        /// ID of the dead letter
        id: i64,
        #[command(flatten)]
        output: Json,
    },
    /// Make dead letters due again
    Redrive {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        filter: DeadFilter,
        /// Only tell how many there are
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Permanently delete dead letters
    Discard {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        filter: DeadFilter,
        /// Only tell how many there are
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Letters {
    /// IDs of dead letters
    ids: Vec<i64>,
    /// All dead letters of this signal type, as far as the options below allow
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// All dead letters, likewise
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct DeadFilter {
    /// Only those with a reason of this group; `dead list --groups` shows the groups
    #[arg(long, value_name = "GROUP")]
    reason: Option<String>,
    /// Only those that have been dead for so long: 30m, 24h
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
}

fn age(text: &str) -> Result<Duration, String> {
    signalbus_core::units::parse_duration(text).ok_or_else(|| "write \"30m\" or \"24h\"".to_owned())
}

/// Accepts a language by its name or its short name.
#[cfg(feature = "author")]
fn languages() -> impl TypedValueParser<Value = Language> {
    let names = Language::ALL.map(|language| PossibleValue::new(language.name()).aliases(language.short_name()));
    PossibleValuesParser::new(names).try_map(|name| Language::from_name(&name).ok_or("unknown language"))
}

/// Parses the arguments, runs the command and returns its exit status.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let requested = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if requested { ExitCode::SUCCESS } else { Exit::Usage.into() };
        }
    };
    if let Command::Worker(worker) = cli.command {
        return worker.work().run();
    }
    logging::start(match cli.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    });
    signalbus_plugin::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logging::failed(&format!("the async runtime cannot start: {error}"));
            return Exit::Failed.into();
        }
    };
    let result = runtime.block_on(dispatch(&cli));
    // Compilations and connection attempts in the background must not delay the exit.
    runtime.shutdown_background();
    signalbus_bus::end();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print().into(),
    }
}

async fn dispatch(cli: &Cli) -> Result<Exit, commands::Failure> {
    let config = cli.config.as_path();
    match &cli.command {
        // It has no runtime.
        Command::Worker(_) => Ok(Exit::Usage),
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
        Command::Plugin { command } => dispatch_plugin(config, command).await,
        Command::Dead { command } => dispatch_dead(config, command).await,
    }
}

#[cfg(any(feature = "author", feature = "admin"))]
async fn dispatch_plugin(config: &std::path::Path, command: &Plugin) -> Result<Exit, commands::Failure> {
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

async fn dispatch_dead(config: &std::path::Path, command: &Dead) -> Result<Exit, commands::Failure> {
    match command {
        Dead::List { names, filter, groups, limit, output } => {
            let limit = (!groups).then_some(*limit);
            commands::dead::list(config, &filter.selection(names), limit, output.output()).await
        }
        Dead::Show { id, output } => commands::dead::show(config, *id, output.output()).await,
        Dead::Redrive { letters, filter, dry_run, output } => {
            commands::dead::redrive(config, &letters.choice(filter), *dry_run, output.output()).await
        }
        Dead::Discard { letters, filter, dry_run, output } => {
            commands::dead::discard(config, &letters.choice(filter), *dry_run, output.output()).await
        }
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
    fn choice(&self, filter: &DeadFilter) -> commands::dead::Choice {
        let names: Vec<String> = self.signal.iter().cloned().collect();
        commands::dead::Choice { ids: self.ids.clone(), selection: filter.selection(&names) }
    }
}

impl DeadFilter {
    fn selection(&self, signals: &[String]) -> signalbus_outbox::Selection {
        let (group, older_than) = (self.reason.clone(), self.older_than);
        signalbus_outbox::Selection { signals: signals.to_vec(), group, older_than }
    }
}

impl Json {
    fn output(self) -> Output {
        if self.json { Output::Json } else { Output::Text }
    }
}

/// Converts seconds to a duration; negative ones count as zero.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
