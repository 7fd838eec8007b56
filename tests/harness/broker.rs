//! Brokers on free loopback ports and temporary folders, which tests may kill.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::server::{as_user, free_port, is_root, run, temporary};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rabbitmq,
    /// NATS, of the version that the system's packages have.
    Nats,
    CurrentNats,
    Redis,
    /// A sentinel of Redis servers.
    Sentinel,
    Mosquitto,
    /// Apache Kafka, one server that is its own controller.
    Kafka,
}

/// A broker of the tests' own.
pub struct Broker {
    kind: Kind,
    port: u16,
    folder: TempDir,
    process: Process,
}

impl Broker {
    /// The broker that the tests of this process share which do not kill or configure it. They have
    /// names of their own in it.
    pub fn shared(kind: Kind) -> &'static Self {
        static SHARED: [OnceLock<Broker>; 7] = [const { OnceLock::new() }; 7];
        SHARED[kind as usize].get_or_init(|| Self::start(kind, ""))
    }

    /// A new broker, which is up when this returns. `more` are lines for its configuration file;
    /// those of Kafka's that are addresses are further listeners, which have one line in it.
    pub fn start(kind: Kind, more: &str) -> Self {
        let folder = temporary();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        let broker = Self { kind, port: free_port(), folder, process: Process::default() };
        broker.configure(more);
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
            Kind::Nats | Kind::CurrentNats => format!("nats://127.0.0.1:{port}"),
            Kind::Redis | Kind::Sentinel => format!("redis://127.0.0.1:{port}"),
            Kind::Mosquitto => format!("mqtt://127.0.0.1:{port}"),
            Kind::Kafka => format!("kafka://127.0.0.1:{port}"),
        }
    }

    /// Connects to Redis, with the patience that a busy machine needs.
    pub async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let patience = Some(Duration::from_secs(30));
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(patience).set_connection_timeout(patience);
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
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

    /// Closes all connections, as an operator does.
    pub fn close_connections(&self) {
        let folder = self.folder.path();
        let mut command = as_user(self.user(), Path::new("/usr/lib/rabbitmq/bin/rabbitmqctl"));
        let node = format!("test{}@localhost", self.port);
        command.env("HOME", folder).env("ERL_EPMD_ADDRESS", "127.0.0.1").env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
        run(command.args(["-q", "-n", node.as_str(), "close_all_connections", "maintenance"]).stdout(Stdio::null()));
    }

    /// Another server for the cluster of one of Kafka's, which has the number 1.
    pub fn joining(&self, number: u32) -> Self {
        let config = std::fs::read_to_string(self.folder.path().join("broker.conf")).unwrap();
        let voters = config.lines().find(|line| line.starts_with("controller.quorum.voters=")).unwrap();
        Self::start(Kind::Kafka, &format!("{voters}\nnode.id={number}"))
    }

    /// A cluster of NATS.
    pub fn nats_cluster() -> [Self; 3] {
        let ports = [(); 3].map(|()| free_port());
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let config =
            |port| format!("server_name: n{port}\ncluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{routes}] }}");
        ports.map(|port| Self::start(Kind::CurrentNats, &config(port)))
    }

    /// What the process has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn configure(&self, more: &str) {
        let (folder, port) = (self.folder.path().display(), self.port);
        let text = match self.kind {
            Kind::Rabbitmq => format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n{more}\n"
            ),
            Kind::Nats | Kind::CurrentNats => {
                format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{folder}\" }}\n{more}\n")
            }
            Kind::Redis => format!("bind 127.0.0.1\nport {port}\ndir {folder}\nappendonly yes\nappendfsync always\n{more}\n"),
            Kind::Sentinel => format!("bind 127.0.0.1\nport {port}\ndir {folder}\n{more}\n"),
            // It saves what it has when it is told to end; after every message would take it too long.
            Kind::Mosquitto => format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n{more}\n"
            ),
            Kind::Kafka => kafka_properties(self.folder.path(), port, more),
        };
        std::fs::write(self.folder.path().join("broker.conf"), text).unwrap();
        match self.kind {
            Kind::Rabbitmq => std::fs::write(self.folder.path().join("plugins"), "[].\n").unwrap(),
            Kind::Kafka => format_kafka(self.folder.path()),
            _ => {}
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
            Kind::CurrentNats => super::servers().join("bin/nats-server"),
            Kind::Redis | Kind::Sentinel => "redis-server".into(),
            Kind::Mosquitto => "mosquitto".into(),
            Kind::Kafka => kafka().join("java"),
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
                    // Erlang's threads look for work for a while before they sleep, which takes a processor from the others.
                    .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none")
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
            Kind::Nats | Kind::CurrentNats => drop(command.arg("-c").arg(&config)),
            Kind::Redis => drop(command.arg(&config)),
            Kind::Sentinel => drop(command.arg(&config).arg("--sentinel")),
            Kind::Mosquitto => drop(command.arg("-c").arg(&config)),
            Kind::Kafka => {
                // It reads the keys of tokens from nowhere else.
                let text = std::fs::read_to_string(&config).unwrap();
                let keys = text.lines().find_map(|line| line.strip_prefix("sasl.oauthbearer.jwks.endpoint.url="));
                let allowed = keys.map(|keys| format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"));
                command.args(allowed).args(java("kafka.Kafka")).arg(&config);
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
            Kind::Nats | Kind::CurrentNats => (b"", b"INFO"),
            // Or it asks for a password first.
            Kind::Redis | Kind::Sentinel => (b"PING\r\n", b"+PONG"),
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
            Kind::Redis | Kind::Sentinel => "redis",
            Kind::Mosquitto => "mosquitto",
            // They are installed within the project, whose folder others may not read.
            Kind::CurrentNats | Kind::Kafka => "root",
        }
    }
}

fn kafka_properties(folder: &Path, port: u16, more: &str) -> String {
    let (listeners, more): (Vec<&str>, Vec<&str>) =
        more.lines().partition(|line| line.split_once("://").is_some_and(|(name, _)| !name.contains('=')));
    let listeners: String = listeners.iter().map(|listener| format!(",{listener}")).collect();
    // One that is told of a controller is no controller itself.
    let joins = more.iter().any(|line| line.starts_with("controller.quorum.voters="));
    let controller = free_port();
    let (roles, voters, own) = match joins {
        true => ("broker", String::new(), String::new()),
        false => (
            "broker,controller\nnode.id=1",
            format!("controller.quorum.voters=1@127.0.0.1:{controller}\n"),
            format!("CONTROLLER://127.0.0.1:{controller},"),
        ),
    };
    format!(
        "process.roles={roles}\nlog.dirs={folder}/data\n{voters}controller.listener.names=CONTROLLER\n\
         listeners={own}PLAINTEXT://127.0.0.1:{port}{listeners}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
         SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
         auto.create.topics.enable=false\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         # One that is killed may come back only when its session has ended.\n\
         broker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=300\n{more}\n",
        folder = folder.display(),
        more = more.join("\n"),
    )
}

/// Makes what Kafka starts from, with its users by SCRAM: ann and bob, whose password is `treasure`.
///
/// All first nodes have the same: to make it takes as long as to start one.
fn format_kafka(folder: &Path) {
    static FIRST: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let (config, data) = (folder.join("broker.conf"), folder.join("data"));
    if !std::fs::read_to_string(&config).unwrap().contains("node.id=1\n") {
        return run_format(&config);
    }
    let mut own = false;
    let files = FIRST.get_or_init(|| {
        own = true;
        run_format(&config);
        files(&data).into_iter().map(|file| (file.strip_prefix(&data).unwrap().into(), std::fs::read(&file).unwrap())).collect()
    });
    if !own {
        for (name, content) in files {
            std::fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
            std::fs::write(data.join(name), content).unwrap();
        }
    }
}

/// All files in a folder, and in the folders in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn run_format(config: &Path) {
    let mut command = Command::new(kafka().join("java"));
    command.args(java("kafka.tools.StorageTool")).args(["format", "--cluster-id=AAAAAAAAAAAAAAAAAAAAAQ", "-c"]).arg(config);
    for (mechanism, user) in [("SCRAM-SHA-256", "ann"), ("SCRAM-SHA-512", "bob")] {
        command.arg("--add-scram").arg(format!("{mechanism}=[name={user},password=treasure]"));
    }
    run(&mut command);
}

/// Arguments for Java to run a program of Kafka's: one that starts soon, for little to do.
fn java(program: &str) -> [String; 7] {
    let jars = kafka().join("jars/*").display().to_string();
    let quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, "-cp", jars.as_str(), program].map(str::to_owned)
}

/// The folder with Apache Kafka and the Java that runs it, as `make servers` installs them.
fn kafka() -> PathBuf {
    let folder = super::target().join("tools/kafka");
    folder.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run `make servers` first", folder.display()))
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
