//! The process of a server, which tests may kill and start again.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use super::server::run;

#[derive(Default)]
pub struct Process(Mutex<Option<Child>>);

impl Process {
    /// Starts the process, and waits until it answers. One that ends before, since something of a
    /// killed predecessor is still there, is started again.
    pub fn up(&self, command: impl Fn() -> Command, answers: impl Fn() -> bool, log: &Path) {
        let mut process = self.0.lock().unwrap();
        let (begun, mut child) = (Instant::now(), spawn(command()));
        while !answers() {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(90), "a server does not come up: {}", said());
            std::thread::sleep(Duration::from_millis(50));
            if child.try_wait().unwrap().is_some() {
                child = spawn(command());
            }
        }
        *process = Some(child);
    }

    /// Ends it with SIGKILL, and waits until nobody listens at its port.
    pub fn kill(&self, port: u16) {
        if let Some(mut child) = self.0.lock().unwrap().take() {
            // The children of a postmaster end by themselves once it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_ok() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
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
