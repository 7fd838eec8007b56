//! The command line: what each command, option and argument is called, and its help text.
//!
//! The only module that knows clap. It does no work itself: every command goes on in `commands`.

mod dead;
#[cfg(any(feature = "author", feature = "admin"))]
mod plugin;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{self, Exit, Migration, Output, Selection};
use crate::logging;
use dead::{Dead, dispatch_dead};
#[cfg(any(feature = "author", feature = "admin"))]
use plugin::{Plugin, dispatch_plugin};
use signalbus_relay::Extent;
use worker::Worker;

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

impl Json {
    fn output(self) -> Output {
        if self.json { Output::Json } else { Output::Text }
    }
}

/// Converts seconds to a duration; negative ones count as zero.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
