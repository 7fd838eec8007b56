//! The process of a server, which tests may kill and start again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::server::run;

#[derive(Default)]
pub struct Process(Mutex<Option<Child>>);

impl Process {
    /// Starts the process, and waits until it answers. One that ends before, since something of a
    /// killed predecessor is still there, is started again.
    pub fn up(&self, command: impl Fn() -> Command, answers: impl Fn() -> bool, log: &Path) {
        let spawn = || *self.0.lock().unwrap() = Some(spawn(command()));
        let ended = || self.0.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().is_ok_and(|end| end.is_some()));
        let begun = Instant::now();
        spawn();
        while !answers() {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "a server does not come up: {}", said());
            std::thread::sleep(Duration::from_millis(50));
            if ended() {
                spawn();
            }
        }
    }

    /// Ends it and its children with SIGKILL: those of a postmaster would serve on until they notice.
    pub fn kill(&self) {
        if let Some(mut child) = self.0.lock().unwrap().take() {
            let id = child.id();
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            child.kill().unwrap();
            child.wait().unwrap();
            let children: Vec<&str> = children.split_whitespace().collect();
            if !children.is_empty() {
                Command::new("kill").arg("-KILL").args(&children).stderr(Stdio::null()).status().unwrap();
            }
            let begun = Instant::now();
            while children.iter().any(|id| runs(id)) {
                assert!(begun.elapsed() < PATIENCE, "a killed server has not ended");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Ends it with SIGTERM, and waits for that.
    pub fn end(&self) {
        if let Some(mut child) = self.0.lock().unwrap().take() {
            run(Command::new("kill").arg(child.id().to_string()));
            let _ = child.wait();
        }
    }
}

/// Whether this process is neither gone nor a zombie, which has no command line.
fn runs(id: &str) -> bool {
    std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// A server dies with this process: it is started from a thread that lives as long, since Linux
/// counts the parent's death by thread.
fn spawn(command: Command) -> Child {
    type Job = (Command, mpsc::Sender<Child>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in queue {
                done.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(jobs)
    });
    let (done, spawned) = mpsc::channel();
    spawner.lock().unwrap().send((command, done)).unwrap();
    spawned.recv().unwrap()
}
