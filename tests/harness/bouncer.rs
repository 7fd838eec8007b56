//! PgBouncer between a client and PostgreSQL.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::server::{Server, free_port};

/// A PgBouncer in transaction mode.
pub struct Bouncer {
    pub port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// Starts PgBouncer before a server; `more` are further lines for its configuration.
    pub fn before(server: &Server, more: &str) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let port = free_port();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=signalbus\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nunix_socket_dir =\n{more}\n",
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()).status().unwrap();
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "pgbouncer", "-q"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "PgBouncer did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, process, _folder: folder }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
