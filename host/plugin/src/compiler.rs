//! Where components are compiled, and their debug information is read: in worker processes of the command.
//!
//! The relay itself only reads what a worker has put into the cache. Next: `worker`, the other side.

mod process;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::debug_info::Place;
use super::turns::Turns;
use process::Running;

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
    /// For the slices of compiling, and for locating.
    compiling: [Turns; 3],
    locating: Turns,
    refused: Mutex<HashMap<String, Refused>>,
}

/// A file to compile.
pub(super) struct Uncompiled<'a> {
    pub(super) digest: &'a str,
    /// In bytes.
    pub(super) size: usize,
    /// Reads it, when it is its turn: those of all that wait would fill the memory.
    pub(super) read: &'a dyn Fn() -> Result<Vec<u8>, String>,
}

/// A file that does not compile.
#[derive(Debug)]
struct Refused {
    reason: String,
    /// When it may be tried again.
    until: Instant,
}

/// The limits of one kind of work.
struct Limit {
    seconds: u64,
    memory: u64,
}

/// Why a worker process has no answer.
struct Failure {
    reason: String,
    /// Whether its processor time was over.
    late: bool,
    took: Duration,
}

impl Workers {
    /// What part of the memory each process may take.
    const SHARE: u64 = 4;
    /// A component is compiled within the first of these seconds of processor time that is enough for it; then come the
    /// turns that it waits for. The first is enough for most, the third for one with an interpreter of 20 MB on most
    /// machines, and the last for it on any. Beginning again takes a third of the time at most.
    const SLICES: [(u64, usize); 4] = [(2, 0), (8, 1), (30, 1), (240, 2)];
    /// How many bytes of a file compile within a second, on many machines: a slice that is too short is not tried.
    const PACE: usize = 1 << 20;
    const LOCATE: Limit = Limit { seconds: 5, memory: 256 << 20 };
    /// How long a crash waits for others before it is reported without names from debug information.
    const PATIENCE: Duration = Duration::from_secs(3);
    /// How many times longer than its processor time it may take, on a busy machine.
    const SLOWNESS: u32 = 4;
    /// A file that does not compile is tried again after this many times the time that it took, or the longest time:
    /// memory may have been short.
    const REST: u32 = 20;
    const LONGEST_REST: Duration = Duration::from_secs(600);

    pub(super) fn new(command: PathBuf) -> Self {
        let memory = (available() / Self::SHARE).clamp(512 << 20, 2 << 30);
        let (compiling, locating) = ([1; 3].map(Turns::new), Turns::new(2));
        Self { command, memory, compiling, locating, refused: Mutex::default() }
    }

    /// Compiles a component into a cache, unless it is there. Blocks.
    ///
    /// One that takes longer than a slice begins again behind all that have not had as much, so that those that take
    /// little wait for nothing else.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(super) fn compile(&self, file: &Uncompiled<'_>, cache: &Path, frugal: bool) -> Result<(), String> {
        let failed = |reason| Failure { reason, late: false, took: Duration::ZERO };
        let attempt = |level: usize, seconds, turns: &Turns| {
            let mut command = Command::new(&self.command);
            command.args(["worker", "compile"]).arg("--cache").arg(cache);
            if frugal {
                command.arg("--frugal");
            }
            let _turn = turns.take(level, Duration::MAX);
            // Another may have found it out meanwhile.
            self.refusal(file.digest).map_or(Ok(()), Err).map_err(failed)?;
            let bytes = (file.read)().map_err(failed)?;
            let scratch = scratch(cache).map_err(|error| failed(format!("{}: {error}", cache.display())))?;
            command.arg("--scratch").arg(scratch.path());
            self.run(command, &Limit { seconds, memory: self.memory }, &bytes)
        };
        let mut tried = Err(failed(String::new()));
        let enough = |(_, (seconds, _)): &(usize, (u64, usize))| *seconds > (file.size / Self::PACE) as u64;
        for (level, (seconds, turns)) in Self::SLICES.into_iter().enumerate().filter(enough) {
            tried = attempt(level, seconds, &self.compiling[turns]);
            if !matches!(&tried, Err(failure) if failure.late) {
                break;
            }
        }
        tried.map(drop).map_err(|failure| {
            self.refuse(file.digest, &failure);
            failure.reason
        })
    }

    /// Returns names and source lines of places in a component, as a worker has written them. Blocks.
    ///
    /// # Errors
    /// Why they are not known.
    pub(super) fn locate(&self, read: &dyn Fn() -> Option<Vec<u8>>, places: &[Place]) -> Result<String, String> {
        let mut command = Command::new(&self.command);
        command.args(["worker", "locate"]).args(places.iter().map(Place::to_string));
        let _turn = self.locating.take(0, Self::PATIENCE).ok_or("too many others wait")?;
        let bytes = read().ok_or("the file has changed")?;
        self.run(command, &Self::LOCATE, &bytes).map_err(|failure| failure.reason)
    }

    /// Why a file was refused, if it need not be tried again yet.
    fn refusal(&self, digest: &str) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(digest).filter(|refused| refused.until > Instant::now()).map(|refused| refused.reason.clone())
    }

    fn refuse(&self, digest: &str, failure: &Failure) {
        let (now, reason) = (Instant::now(), failure.reason.clone());
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, refused| refused.until > now);
        let until = now + (failure.took * Self::REST).min(Self::LONGEST_REST);
        refused.entry(digest.to_owned()).or_insert(Refused { reason, until });
    }

    fn run(&self, mut command: Command, limit: &Limit, bytes: &[u8]) -> Result<String, Failure> {
        command.arg("--memory").arg(limit.memory.to_string()).arg("--seconds").arg(limit.seconds.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let answer = match command.spawn() {
            Ok(child) => Running(child).answer(limit, bytes),
            Err(error) => Err((format!("{} cannot be started: {error}", self.command.display()), false)),
        };
        answer.map_err(|(reason, late)| Failure { reason, late, took: begun.elapsed() })
    }
}

/// Makes a folder in which one worker process compiles; it goes when the process has ended, in whatever way.
fn scratch(cache: &Path) -> std::io::Result<TempDir> {
    /// No process takes as long.
    const LONGEST: Duration = Duration::from_secs(3600);
    let folder = cache.join("compiling");
    std::fs::create_dir_all(&folder)?;
    for left in std::fs::read_dir(&folder)?.flatten() {
        // By a relay that was killed.
        let made = left.metadata().and_then(|metadata| metadata.modified());
        if made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LONGEST)) {
            let _ = std::fs::remove_dir_all(left.path());
        }
    }
    TempDir::new_in(folder)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Workers that are this script.
    fn workers(folder: &Path, script: &str) -> Workers {
        let command = folder.join("worker");
        std::fs::write(&command, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
        Workers::new(command)
    }

    fn compile(workers: &Workers, folder: &Path, digest: &str, text: &str) -> Result<(), String> {
        let file = Uncompiled { digest, size: text.len(), read: &|| Ok(text.into()) };
        workers.compile(&file, folder, false)
    }

    #[test]
    fn a_crash_does_not_wait_for_what_is_compiled() {
        let folder = tempfile::TempDir::new().unwrap();
        let workers = workers(folder.path(), "case \"$2\" in compile) exec sleep 4;; *) echo found;; esac");
        std::thread::scope(|scope| {
            for digest in ["1", "2", "3"] {
                scope.spawn(|| compile(&workers, folder.path(), digest, ""));
            }
            std::thread::sleep(Duration::from_millis(300));
            let begun = Instant::now();
            assert_eq!(workers.locate(&|| Some(Vec::new()), &[]).unwrap(), "found\n");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn a_crash_does_not_wait_long_for_other_crashes() {
        let folder = tempfile::TempDir::new().unwrap();
        let workers = workers(folder.path(), "exec sleep 8");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| workers.locate(&|| Some(Vec::new()), &[]));
            }
            std::thread::sleep(Duration::from_millis(300));
            let begun = Instant::now();
            assert_eq!(workers.locate(&|| Some(Vec::new()), &[]).unwrap_err(), "too many others wait");
            assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn what_takes_long_lets_others_pass_and_is_not_tried_again_at_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let tries = folder.path().join("tries");
        // Standard input tells what to do; more seconds do not help.
        let script = format!("read -r word; echo $word >> {tries:?}; case $word in slow) sleep 1; kill -9 $$;; esac");
        let workers = workers(folder.path(), &script);
        let refused = compile(&workers, folder.path(), "1", "slow\n").unwrap_err();
        assert_eq!(refused, "it takes more than 240 seconds of processor time");
        compile(&workers, folder.path(), "2", "good\n").unwrap();
        assert_eq!(compile(&workers, folder.path(), "1", "slow\n").unwrap_err(), refused);
        assert_eq!(std::fs::read_to_string(&tries).unwrap(), "slow\nslow\nslow\nslow\ngood\n");
    }

    /// What is large begins with the slice that may be enough for it.
    #[test]
    fn what_is_large_is_not_tried_in_vain() {
        let folder = tempfile::TempDir::new().unwrap();
        let tries = folder.path().join("tries");
        let script = format!("while [ \"$1\" != --seconds ]; do shift; done; echo $2 >> {tries:?}; kill -9 $$");
        let workers = workers(folder.path(), &script);
        for (digest, size) in [("small", 1 << 20), ("large", 12 << 20), ("largest", 128 << 20)] {
            let file = Uncompiled { digest, size, read: &|| Ok(Vec::new()) };
            workers.compile(&file, folder.path(), false).unwrap_err();
        }
        assert_eq!(std::fs::read_to_string(&tries).unwrap(), "2\n8\n30\n240\n30\n240\n240\n");
    }

    /// Not even what is killed leaves anything behind; and what a killed relay has left goes in time.
    #[test]
    fn a_worker_leaves_no_folder() {
        let folder = tempfile::TempDir::new().unwrap();
        let workers = workers(folder.path(), "while [ \"$1\" != --scratch ]; do shift; done; touch \"$2/half\"; kill -9 $$");
        let left = folder.path().join("compiling/left");
        std::fs::create_dir_all(&left).unwrap();
        let entries = || std::fs::read_dir(folder.path().join("compiling")).unwrap().count();
        compile(&workers, folder.path(), "1", "").unwrap_err();
        assert_eq!(entries(), 1);
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        std::fs::File::open(&left).unwrap().set_modified(old).unwrap();
        compile(&workers, folder.path(), "2", "").unwrap_err();
        assert_eq!(entries(), 0);
    }

    /// What takes little waits for slices that are as short as its own, however many wait that take long.
    #[test]
    fn what_takes_little_is_compiled_first() {
        const COSTLY: usize = 6;
        let folder = tempfile::TempDir::new().unwrap();
        let begun = folder.path().join("begun");
        // Standard input tells how many seconds it takes. A second is a hundredth of one here.
        let script = format!(
            "read -r needs; while [ \"$1\" != --seconds ]; do shift; done; echo $needs $2 >> {begun:?}
             if [ $needs -gt $2 ]; then sleep $(printf '%d.%02d' $(($2 / 100)) $(($2 % 100))); kill -9 $$; fi"
        );
        let workers = workers(folder.path(), &script);
        let begun = || std::fs::read_to_string(folder.path().join("begun")).unwrap_or_default();
        std::thread::scope(|scope| {
            for n in 0..COSTLY {
                let workers = &workers;
                scope.spawn(move || compile(workers, workers.command.parent().unwrap(), &n.to_string(), "1000\n"));
            }
            while begun().lines().count() < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let honest = [("cheap", "1\n"), ("interpreter", "7\n")].map(|(digest, needs)| {
                let compiled = || compile(&workers, folder.path(), digest, needs).map(|()| begun());
                scope.spawn(compiled)
            });
            for thread in honest {
                let before = thread.join().unwrap().unwrap();
                let long = before.lines().filter(|line| *line == "1000 30").count();
                assert!(long < COSTLY / 2, "it waited for {long} of {COSTLY}: {before}");
            }
        });
        let slices = |seconds: u64| begun().lines().filter(|line| *line == format!("1000 {seconds}")).count();
        assert_eq!([2, 8, 30, 240].map(slices), [COSTLY; 4]);
    }
}
