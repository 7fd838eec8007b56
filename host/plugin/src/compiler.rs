//! Where components are compiled, and their debug information is read: in worker processes of the command.
//!
//! The relay itself only reads what a worker has put into the cache. Next: `worker`, the other side.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::debug_info::Place;
use super::limits::Size;
use super::worker::REFUSED;
use signalbus_core::text;

/// What compiles components.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// This process, without any limit: for components that are trusted.
    #[default]
    InProcess,
    /// A process of this program, which calls [`Work::run`](super::Work::run) for the arguments `worker …`.
    Command(PathBuf),
}

/// Runs worker processes of a command, a few at a time.
#[derive(Debug)]
pub(super) struct Workers {
    command: PathBuf,
    /// Bytes of memory for each.
    memory: u64,
    running: Mutex<usize>,
    ended: Condvar,
}

/// The limits of one kind of work.
struct Limit {
    seconds: u64,
    memory: u64,
}

impl Workers {
    /// Processes at a time, and what part of the memory each may take.
    const MOST: usize = 2;
    const SHARE: u64 = 4;
    /// Enough for a component with an interpreter of 20 MB.
    const COMPILE_SECONDS: u64 = 240;
    const LOCATE: Limit = Limit { seconds: 5, memory: 256 << 20 };
    /// How many times longer than its processor time it may take, on a busy machine.
    const SLOWNESS: u32 = 4;

    pub(super) fn new(command: PathBuf) -> Self {
        let memory = (available() / Self::SHARE).clamp(512 << 20, 2 << 30);
        Self { command, memory, running: Mutex::new(0), ended: Condvar::new() }
    }

    /// Compiles a component into a cache. Blocks.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(super) fn compile(&self, bytes: &[u8], cache: &Path, frugal: bool) -> Result<(), String> {
        let mut command = Command::new(&self.command);
        command.args(["worker", "compile"]).arg("--cache").arg(cache);
        if frugal {
            command.arg("--frugal");
        }
        let limit = Limit { seconds: Self::COMPILE_SECONDS, memory: self.memory };
        self.run(command, &limit, bytes).map(drop)
    }

    /// Returns names and source lines of places in a component, as a worker has written them. Blocks.
    ///
    /// # Errors
    /// Why they are not known.
    pub(super) fn locate(&self, bytes: &[u8], places: &[Place]) -> Result<String, String> {
        let mut command = Command::new(&self.command);
        command.args(["worker", "locate"]).args(places.iter().map(Place::to_string));
        self.run(command, &Self::LOCATE, bytes)
    }

    fn run(&self, mut command: Command, limit: &Limit, bytes: &[u8]) -> Result<String, String> {
        let _turn = self.turn();
        command.arg("--memory").arg(limit.memory.to_string()).arg("--seconds").arg(limit.seconds.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("{} cannot be started: {error}", self.command.display()))?;
        Running(child).answer(limit, bytes)
    }

    /// Waits until few enough processes run.
    fn turn(&self) -> Turn<'_> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.ended.wait_while(running, |running| *running >= Self::MOST);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }
}

struct Turn<'a>(&'a Workers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_one();
    }
}

/// A worker process, which does not outlive its use.
struct Running(Child);

impl Running {
    const CHECK: Duration = Duration::from_millis(5);
    /// The longest answer.
    const LONGEST: u64 = 64 << 10;

    fn answer(mut self, limit: &Limit, bytes: &[u8]) -> Result<String, String> {
        if let Some(mut input) = self.0.stdin.take() {
            // If it has died, its status tells.
            let _ = input.write_all(bytes);
        }
        let most = Duration::from_secs(limit.seconds) * Workers::SLOWNESS;
        let begun = Instant::now();
        let status = loop {
            match self.0.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if begun.elapsed() < most => {
                    std::thread::sleep(Self::CHECK.max(begun.elapsed() / 16).min(Self::CHECK * 10))
                }
                Ok(None) => return Err(format!("it takes more than {} minutes", most.as_secs() / 60)),
                Err(error) => return Err(error.to_string()),
            }
        };
        let (mut answer, mut reason) = (Vec::new(), Vec::new());
        if let (Some(output), Some(errors)) = (self.0.stdout.take(), self.0.stderr.take()) {
            // What does not fit is no answer.
            let _ = output.take(Self::LONGEST).read_to_end(&mut answer);
            let _ = errors.take(Self::LONGEST).read_to_end(&mut reason);
        }
        match status.success() {
            true => Ok(String::from_utf8_lossy(&answer).into_owned()),
            false => Err(failure(status, limit, &String::from_utf8_lossy(&reason))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why a worker process failed.
fn failure(status: ExitStatus, limit: &Limit, said: &str) -> String {
    if status.code() == Some(REFUSED.into()) {
        return said.to_owned();
    }
    let exhausted = said.contains("memory allocation of") || said.contains("Cannot allocate memory");
    match status.signal() {
        _ if exhausted => format!("it takes more than {} of memory", Size(usize::try_from(limit.memory).unwrap_or(usize::MAX))),
        Some(9 | 24) => format!("it takes more than {} seconds of processor time", limit.seconds),
        _ => {
            let mut said = text::printable(said).trim().to_owned();
            text::cut(&mut said, 256);
            format!("the process for it ended with {status}: {said}")
        }
    }
}

/// Returns the user's folder for compiled plugins, and for what building them leaves: `$XDG_CACHE_HOME/signalbus` or `~/.cache/signalbus`.
pub fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("signalbus"))
}

/// The memory that this process may take: of the machine, or of its control group.
fn available() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|told| {
        let line = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    });
    group.into_iter().chain(machine).min().unwrap_or(2 << 30)
}
