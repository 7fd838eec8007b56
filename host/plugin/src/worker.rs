//! Work on files that nobody trusts, in a process of its own: the command `signalbus worker`.
//!
//! A component can be made so that compiling it, or reading its debug information, takes more time or memory than there
//! is. The process has limits on both; its death costs the file its use, and nothing else. `compiler` starts it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

use super::debug_info::{self, Place};
use super::engine;
use signalbus_core::text;

/// The work of a worker process, and its limits.
#[derive(Clone, Debug)]
pub struct Work {
    pub job: Job,
    /// Bytes of memory that it may take.
    pub memory: u64,
    /// Seconds of processor time that it may take.
    pub seconds: u64,
}

#[derive(Clone, Debug)]
pub enum Job {
    /// Compiles the component on standard input into a cache, for an address space that is small or not. `scratch` is a
    /// folder within the cache, for this process alone.
    Compile { cache: PathBuf, scratch: PathBuf, frugal: bool },
    /// Finds names and source lines of these places in the component on standard input.
    Locate { places: Vec<Place> },
}

/// The exit status for a file that cannot be used; the reason is on standard error.
pub(super) const REFUSED: u8 = 65;

/// Longest reason that is passed on.
const LONGEST: usize = 4 << 10;

impl Work {
    /// Does the work of a worker process, which standard input and output belong to.
    pub fn run(self) -> ExitCode {
        self.limit();
        let mut bytes = Vec::new();
        let done = match std::io::stdin().lock().read_to_end(&mut bytes) {
            Ok(_) => match self.job {
                Job::Compile { cache, scratch, frugal } => {
                    let compiled = engine::compile_into(&cache, &scratch, frugal, &bytes);
                    compiled.map(|()| String::new()).map_err(|error| format!("{error:#}"))
                }
                Job::Locate { places } => Ok(debug_info::locate(&bytes, &places)),
            },
            Err(error) => Err(error.to_string()),
        };
        let (told, status) = match &done {
            Ok(answer) => (std::io::stdout().write_all(answer.as_bytes()), ExitCode::SUCCESS),
            Err(reason) => {
                let mut reason = reason.clone();
                text::cut(&mut reason, LONGEST);
                (std::io::stderr().write_all(reason.as_bytes()), ExitCode::from(REFUSED))
            }
        };
        if told.is_ok() { status } else { ExitCode::FAILURE }
    }

    /// Takes the limits on. Where the system does not know one, the relay still ends the process after a while.
    fn limit(&self) {
        let set = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
        let _ = set(Resource::Data, self.memory);
        let _ = set(Resource::Cpu, self.seconds);
        let _ = set(Resource::Core, 0);
        // What is sent comes first, and if memory runs out, it is this process that goes.
        let _ = setpriority_process(None, 5);
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}
