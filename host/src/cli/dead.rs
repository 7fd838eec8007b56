//! `dead …`: lists, shows, redrives and discards dead letters.
//!
//! Does no work itself. Next: `commands::dead`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Json;
use crate::commands::{self, Exit};

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
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
pub(super) struct Letters {
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
pub(super) struct DeadFilter {
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

pub(super) async fn dispatch_dead(config: &std::path::Path, command: &Dead) -> Result<Exit, commands::Failure> {
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
