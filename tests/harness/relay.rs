//! A running relay: `signalbus run`, with its admin listener on a free port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use super::command::{Project, send};
use super::database::Database;
use super::server::free_port;
use super::witness::Witness;
use super::{PATIENCE, pause};

/// A running relay, killed when dropped.
pub struct Running {
    pub project: Project,
    pub witness: Witness,
    pub port: u16,
    process: Option<Child>,
}

/// Another relay of the same project, killed when dropped.
pub struct Sibling(pub Child);

impl Drop for Sibling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A response of the admin listener.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Running {
    /// Writes the configuration into the database's folder, starts the relay, and waits until it is
    /// ready. `signals` are the sections of the signal types.
    pub fn start(database: &Database, signals: &str) -> Self {
        let running = Self::spawn(database, signals, "");
        running.wait_ready();
        running
    }

    /// The same, without waiting; `admin` are further lines for `[admin]`.
    pub fn spawn(database: &Database, signals: &str, admin: &str) -> Self {
        let mut running = Self::stopped(database, signals, admin);
        running.again();
        running
    }

    /// Like `start`, with these arguments.
    pub fn start_with(arguments: &[&str], database: &Database, signals: &str) -> Self {
        let mut running = Self::stopped(database, signals, "");
        running.process = Some(running.project.command(arguments).stderr(running.witness.stderr()).spawn().unwrap());
        running.wait_ready();
        running
    }

    /// Like `start`, with so many file descriptors.
    pub fn start_within(descriptors: u32, database: &Database, signals: &str) -> Self {
        let mut running = Self::stopped(database, signals, "");
        let mut command = running.project.command_within(descriptors, &["run"]);
        running.process = Some(command.stderr(running.witness.stderr()).spawn().unwrap());
        running.wait_ready();
        running
    }

    fn stopped(database: &Database, signals: &str, admin: &str) -> Self {
        let port = free_port();
        let config = config(&database.url, port, admin, signals);
        let (project, witness) = (Project::new(database.folder(), &config), Witness::new(database.folder()));
        Self { project, witness, port, process: None }
    }

    /// Starts the relay again.
    pub fn again(&mut self) {
        let child = self.project.command(&["run"]).stderr(self.witness.stderr()).spawn().unwrap();
        self.process = Some(child);
    }

    /// Starts another relay of the same project, without an admin listener.
    pub fn sibling(&self) -> Sibling {
        let file = self.project.folder().join("signalbus.toml");
        let text = std::fs::read_to_string(&file).unwrap().replace("[admin]\nlisten", "[admin]\n#");
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.project.folder().join(format!("sibling-{number}.toml"));
        std::fs::write(&path, text).unwrap();
        let mut command = self.project.command(&["--config", path.to_str().unwrap(), "run"]);
        Sibling(command.stderr(self.witness.stderr()).spawn().unwrap())
    }

    /// Writes another configuration, without telling the relay.
    pub fn configure(&self, database: &Database, signals: &str) {
        let file = self.project.folder().join("signalbus.toml");
        std::fs::write(file, config(&database.url, self.port, "", signals)).unwrap();
    }

    pub fn wait_ready(&self) {
        self.wait("the relay is not ready", || self.try_get("/readyz").is_some_and(|answer| answer.status == 200));
    }

    /// Waits for a condition.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what}: {}", self.witness.text());
            std::thread::sleep(pause(begun));
        }
    }

    /// Waits until a table is empty.
    pub async fn wait_empty(&self, database: &Database, table: &str) {
        let begun = Instant::now();
        while database.count(table).await > 0 {
            assert!(begun.elapsed() < PATIENCE, "{table} is not sent: {}", self.witness.text());
            tokio::time::sleep(pause(begun)).await;
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|| panic!("no response from {path}: {}", self.witness.text()))
    }

    pub fn post(&self, path: &str) -> Answer {
        self.request("POST", path, "", "").unwrap()
    }

    fn try_get(&self, path: &str) -> Option<Answer> {
        self.request("GET", path, "", "").ok()
    }

    /// Sends one request; each of the `headers` ends with a line break.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(70)))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\n{headers}\r\n{body}"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Ok(Answer { status, body: body.to_owned() })
    }

    /// The entry of a signal type in `/api/v1/status`.
    pub fn status_of(&self, signal: &str) -> serde_json::Value {
        let status = self.get("/api/v1/status").json();
        let signals = status["signals"].as_array().unwrap();
        signals.iter().find(|found| found["type"] == signal).cloned().unwrap_or_default()
    }

    /// The value of a metric, by its name and labels as in the exposition format.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// The most memory that the process has held, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The time that processors spent on it so far.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        send(self.process.as_ref().unwrap(), name);
    }

    /// Sends SIGTERM, and returns the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for the process, and returns its exit status.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.take().unwrap().wait().unwrap().code()
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(url: &str, port: u16, admin: &str, signals: &str) -> String {
    format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n{admin}\n[database]\nurl = \"{url}\"\n{signals}")
}

/// The configuration section of a signal type.
pub fn section(name: &str, plugin: &std::path::Path, more: &str) -> String {
    format!("[signals.{name}]\nplugin = {plugin:?}\n{more}\n")
}

/// A copy of a guest that a test may change.
pub fn plugin_file(database: &Database, guest: &str) -> PathBuf {
    let file = database.folder().join("plugin.wasm");
    replace(&file, guest);
    file
}

/// Replaces a plugin by another guest atomically, as a careful deployment does.
pub fn replace(file: &std::path::Path, guest: &str) {
    let fresh = file.with_extension("fresh");
    std::fs::copy(super::guest(guest), &fresh).unwrap();
    std::fs::rename(&fresh, file).unwrap();
}

/// Replaces a plugin by another edition of a guest: the same code with another digest.
pub fn replace_by_edition(file: &std::path::Path, guest: &str, edition: u32) {
    let fresh = file.with_extension("fresh");
    let mut component = std::fs::read(super::guest(guest)).unwrap();
    // A custom section: its number, its length, its name, its content.
    component.extend([0, 6, 1, b'e']);
    component.extend(edition.to_le_bytes());
    std::fs::write(&fresh, component).unwrap();
    std::fs::rename(&fresh, file).unwrap();
}
