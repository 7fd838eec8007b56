//! Brokers on free loopback ports and temporary folders, which tests may kill.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::server::{as_user, free_port, is_root, run, temporary};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rabbitmq,
    Nats,
    Redis,
    Mosquitto,
    /// Tansu, which speaks Kafka's protocol.
    Kafka,
}

/// A broker of the tests' own.
pub struct Broker {
    kind: Kind,
    port: u16,
    /// Lines for its configuration file; arguments of Kafka's.
    more: String,
    folder: TempDir,
    process: Process,
}

impl Broker {
    /// A new broker, which is up when this returns. `more` are lines for its configuration file;
    /// arguments of Kafka's.
    pub fn start(kind: Kind, more: &str) -> Self {
        let folder = temporary();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        let broker = Self { kind, port: free_port(), more: more.to_owned(), folder, process: Process::default() };
        broker.configure();
        if is_root() {
            run(Command::new("chown").arg("-R").arg(broker.user()).arg(broker.folder.path()));
        }
        broker.up();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, as it stands in a configuration.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::Rabbitmq => format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
            Kind::Nats => format!("nats://127.0.0.1:{port}"),
            Kind::Redis => format!("redis://127.0.0.1:{port}"),
            Kind::Mosquitto => format!("mqtt://127.0.0.1:{port}"),
            Kind::Kafka => format!("kafka://127.0.0.1:{port}"),
        }
    }

    /// Ends it, and starts it with other arguments.
    pub fn restart_with(&mut self, more: &str) {
        self.end();
        self.more = more.to_owned();
        self.up();
    }

    /// Lets Kafka's own tool do something.
    pub fn administer(&self, args: &[&str]) {
        run(Command::new(tansu()).args(args).args(["--broker", &format!("tcp://127.0.0.1:{}", self.port)]));
    }

    /// Starts the process, on the same port as before, and waits until it answers.
    pub fn up(&self) {
        self.process.up(|| self.command(), || self.answers(), &self.folder.path().join("log"));
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Ends the process with SIGTERM, and waits for that.
    pub fn end(&self) {
        self.process.end();
    }

    fn configure(&self) {
        let (folder, port, more) = (self.folder.path().display(), self.port, &self.more);
        let text = match self.kind {
            Kind::Rabbitmq => format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n{more}\n"
            ),
            Kind::Nats => format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{folder}\" }}\n{more}\n"),
            Kind::Redis => format!("bind 127.0.0.1\nport {port}\ndir {folder}\nappendonly yes\nappendfsync always\n{more}\n"),
            // It saves what it has when it is told to end; after every message would take it too long.
            Kind::Mosquitto => format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n{more}\n"
            ),
            Kind::Kafka => return,
        };
        std::fs::write(self.folder.path().join("broker.conf"), text).unwrap();
        if self.kind == Kind::Rabbitmq {
            std::fs::write(self.folder.path().join("plugins"), "[].\n").unwrap();
        }
    }

    fn command(&self) -> Command {
        let folder = self.folder.path();
        let config = folder.join("broker.conf");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let program = match self.kind {
            // The wrapper of Debian insists on its own folders and user.
            Kind::Rabbitmq => "/usr/lib/rabbitmq/bin/rabbitmq-server".into(),
            Kind::Nats => "nats-server".into(),
            Kind::Redis => "redis-server".into(),
            Kind::Mosquitto => "mosquitto".into(),
            Kind::Kafka => tansu(),
        };
        let mut command = as_user(self.user(), &program);
        match self.kind {
            Kind::Rabbitmq => {
                let distribution = free_port().to_string();
                command
                    // So that it replaces its shell, and a kill meets the broker itself.
                    .env("RUNNING_UNDER_SYSTEMD", "1")
                    .env("HOME", folder)
                    .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.port))
                    .env("RABBITMQ_DIST_PORT", distribution)
                    .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                    .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
                    .env("RABBITMQ_CONFIG_FILE", &config)
                    .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
                    .env("RABBITMQ_LOG_BASE", folder)
                    .env("RABBITMQ_LOGS", "-")
                    .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
                    .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
                    .env("RABBITMQ_PID_FILE", folder.join("pid"))
                    .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none");
            }
            Kind::Nats => drop(command.arg("-c").arg(&config)),
            Kind::Redis => drop(command.arg(&config)),
            Kind::Mosquitto => drop(command.arg("-c").arg(&config)),
            Kind::Kafka => {
                let address = format!("tcp://127.0.0.1:{}", self.port);
                command.args(["broker", "--listener-url", &address, "--advertised-listener-url", &address]);
                command.arg("--storage-engine").arg(format!("sqlite://{}/records", folder.display()));
                command.args(self.more.split_whitespace());
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        use std::io::{Read as _, Write as _};
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let (hello, begins): (&[u8], &[u8]) = match self.kind {
            // It listens before it serves: what it answers is the beginning of its handshake.
            Kind::Rabbitmq => (b"AMQP\x00\x00\x09\x01", b"\x01"),
            Kind::Nats => (b"", b"INFO"),
            // Or it asks for a password first.
            Kind::Redis => (b"PING\r\n", b"+PONG"),
            Kind::Mosquitto => return true,
            // Which versions it speaks; the answer is shorter than 64 KiB.
            Kind::Kafka => (b"\0\0\0\x0a\0\x12\0\0\0\0\0\0\xff\xff", b"\0\0"),
        };
        let mut answer = vec![0; begins.len()];
        let answered = stream.write_all(hello).is_ok() && stream.read_exact(&mut answer).is_ok();
        answered && (answer == begins || answer == b"-NOAU")
    }

    fn user(&self) -> &'static str {
        match self.kind {
            Kind::Rabbitmq => "rabbitmq",
            Kind::Nats => "nats",
            Kind::Redis => "redis",
            Kind::Mosquitto => "mosquitto",
            // It is built within the project, whose folder others may not read.
            Kind::Kafka => "root",
        }
    }
}

/// The broker and its tool, as `make servers` builds it.
fn tansu() -> PathBuf {
    super::target().canonicalize().unwrap().join("tools/bin/tansu")
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
