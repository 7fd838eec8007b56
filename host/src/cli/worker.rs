//! `worker`: what the relay starts by itself, for files that it does not trust.
//!
//! Not for people, so not in the help. Next: `signalbus-plugin`, whose `Work` it does.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use signalbus_plugin::{Job, Place, Work};

/// Started by the relay itself, for files that it does not trust.
#[derive(Debug, Args)]
pub(super) struct Worker {
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
    pub(super) fn work(self) -> Work {
        let job = match self.task {
            Task::Compile { cache, scratch, frugal } => Job::Compile { cache, scratch, frugal },
            Task::Locate { places } => Job::Locate { places },
        };
        Work { job, memory: self.memory, seconds: self.seconds }
    }
}
