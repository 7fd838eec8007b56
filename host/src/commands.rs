//! The commands: what each does, prints, and returns as exit status.
//!
//! Results go to standard output, everything else to standard error. A command returns an [`Exit`] or
//! a [`Failure`] and never ends the process itself; only a second SIGTERM or SIGINT does.

pub(crate) mod check;
pub(crate) mod dead;
pub(crate) mod flush;
pub(crate) mod init;
pub(crate) mod plugin;
pub(crate) mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::logging;
use signalbus_core::text;
pub(crate) use signalbus_core::text::printable;
use signalbus_outbox::{Error, LeftLetters, Outbox, Schema, Undeleted, Upgrade};
use signalbus_plugin::Compiler;
use signalbus_relay::Refusal;
use signalbus_relay::config::Config;

/// The exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 64,
    Unreachable = 69,
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: its exit status, and the errors to print.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    texts: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, texts: vec![text.into()] }
    }

    pub(crate) fn print(&self) -> Exit {
        for text in &self.texts {
            logging::failed(text);
        }
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unreachable(_) => Self::new(Exit::Unreachable, unreachable(&error)),
            Error::Refused { .. } => Self::new(Exit::Failed, error.to_string()),
            Error::Schema(_) | Error::Table(_) | Error::Altered(_) => Self::new(Exit::Configuration, error.to_string()),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Database(error) => error.into(),
            Refusal::Faults(texts) => Self { exit: Exit::Configuration, texts },
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Adds advice to the database's own message, which says what happened but not where to look.
pub(crate) fn unreachable(error: &Error) -> String {
    format!("{error}; check that it is available and that `database.url` is correct")
}

/// The format of results on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

/// The options of the flush commands.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) names: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) repeat: Option<Duration>,
    pub(crate) output: Output,
}

pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(|texts| Failure { exit: Exit::Configuration, texts })
}

/// Components are compiled by processes of this command.
pub(crate) fn compiler() -> Compiler {
    // Even if its file is replaced meanwhile.
    let own = PathBuf::from("/proc/self/exe");
    let own = if own.exists() { Ok(own) } else { std::env::current_exe() };
    own.map_or(Compiler::InProcess, Compiler::Command)
}

pub(crate) fn open(config: &Config) -> Result<Outbox, Failure> {
    Ok(signalbus_relay::open_outbox(config)?)
}

/// Prints a line of the result; foreign text in it cannot begin another line or control the terminal. A
/// closed pipe is not an error.
pub(crate) fn print(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{}", printable(&line.to_string()));
}

/// Prints the result as one JSON document.
pub(crate) fn print_json(document: impl std::fmt::Display) {
    // Hidden characters beyond those that JSON must escape occur in strings alone.
    let mut line = String::new();
    for c in document.to_string().chars() {
        match text::is_hidden(c) {
            true => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => line.push(c),
        }
    }
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The options of `migrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Migration {
    /// Print the SQL and change nothing.
    pub(crate) print: bool,
    /// Create triggers that announce inserted rows (PostgreSQL).
    pub(crate) notify: bool,
}

pub(crate) async fn migrate(path: &Path, migration: Migration) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let sources: Vec<_> = config.signals.iter().filter(|signal| signal.autoflush).map(|signal| signal.source.clone()).collect();
    let triggers = migration.notify.then(|| {
        let text = "`--notify` requires PostgreSQL; commits to SQLite are noticed without it, and MySQL is polled";
        outbox.announcing(&sources).ok_or_else(|| Failure::new(Exit::Usage, text))
    });
    let triggers = triggers.transpose()?.unwrap_or_default();
    if migration.print {
        outbox.migration().trim_end().lines().for_each(print);
        print(";");
        triggers.iter().for_each(|statement| format!("{statement};").lines().for_each(print));
        return Ok(Exit::Done);
    }
    let missing = outbox.schema().await? == Schema::Missing;
    let changed = outbox.migrate().await?;
    print(match (missing, changed) {
        (true, _) => "side tables created",
        (false, true) => "side tables upgraded",
        (false, false) => "side tables are up to date",
    });
    let all: Vec<_> = config.signals.iter().map(|signal| signal.source.clone()).collect();
    let done = upgraded(&outbox.upgrade(&all).await?);
    if migration.notify {
        outbox.run(&triggers).await?;
        print(format_args!("triggers `signalbus_notify` created on {} tables", sources.len()));
    }
    Ok(done)
}

/// Tells what became of dead letters and deferrals of an earlier version of the side tables.
fn upgraded(upgrade: &Upgrade) -> Exit {
    let Upgrade { restored, deferred, left } = upgrade;
    if *restored > 0 {
        print(format_args!("{restored} dead letters of an earlier version are back in their tables"));
    }
    if *deferred > 0 {
        print(format_args!("{deferred} signals keep the attempts that an earlier version has charged"));
    }
    for LeftLetters { signal, count, first, reason } in left {
        logging::failed(&format!(
            "{count} dead letters of type \"{signal}\" stay in `signalbus_dead_letter` (the first is {first}): {}",
            printable(reason)
        ));
    }
    if left.is_empty() { Exit::Done } else { Exit::Failed }
}

pub(crate) fn signals(path: &Path, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    match output {
        Output::Text => config.signals.iter().for_each(|signal| print(signal.name())),
        Output::Json => {
            let signals = config.signals.iter().map(|signal| {
                json!({
                    "type": signal.name(),
                    "table": signal.source.table,
                    "plugin": signal.plugin,
                    "order_by": signal.source.order_by,
                    "order_key": signal.source.order_key,
                    "burst_count": signal.burst_count,
                    "concurrency": signal.concurrency,
                    "autoflush": signal.autoflush,
                })
            });
            print_json(json!({ "signals": signals.collect::<Vec<_>>() }));
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn pending(path: &Path, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let mut counts = Vec::new();
    let mut failed = Vec::new();
    for signal in &config.signals {
        match outbox.pending(&signal.source).await {
            Ok(count) => counts.push((count, signal.name())),
            Err(Error::Table(text)) => failed.push(text),
            Err(error) => return Err(error.into()),
        }
    }
    let undeleted = outbox.undeleted().await?;
    let total: u64 = counts.iter().map(|(count, _)| count).sum();
    if output == Output::Json {
        let signals: Vec<_> = counts.iter().map(|(count, name)| json!({ "type": name, "pending": count })).collect();
        print_json(json!({ "signals": signals, "total": total, "undeleted": undeleted }));
        return Ok(told(&failed));
    }
    counts.sort_unstable();
    for (count, name) in counts.iter().filter(|(count, _)| *count > 0) {
        print(format_args!("{count:>7} of type \"{name}\""));
    }
    print("-".repeat(25));
    print(format_args!("Total pending: {total}"));
    for Undeleted { signal, count, reason } in undeleted {
        print(format_args!("{count:>7} of type \"{signal}\" were sent and could not be deleted: {reason}"));
    }
    Ok(told(&failed))
}

/// Tells what could not be counted; everything else was.
fn told(failed: &[String]) -> Exit {
    failed.iter().for_each(|text| logging::failed(text));
    if failed.is_empty() { Exit::Done } else { Exit::Configuration }
}

/// Returns a token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                std::process::exit(130);
            }
            stopper.cancel();
        }
    });
    Ok(stop)
}
