//! Runs the `signalbus` command as a user would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// A project: a folder with a `signalbus.toml`.
pub struct Project {
    folder: PathBuf,
}

/// The exit status and output of a command.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    pub fn new(folder: &Path, config: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("signalbus.toml"), config).unwrap();
        Self { folder: folder.to_owned() }
    }

    /// A folder that may become a project later.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Adds lines to the end of the configuration.
    pub fn append(&self, lines: &str) {
        let file = self.folder.join("signalbus.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{text}{lines}\n")).unwrap();
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The command, to be run in the project's folder. All tests share a cache of compiled plugins.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbus"));
        command.args(args).current_dir(&self.folder).env_remove("SIGNALBUS_CONFIG").env_remove("RUST_LOG");
        // Toolchains for plugins, installed by `make toolchains`.
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{path}:{}", super::target().canonicalize().unwrap().join("tools/bin").display()));
        command.env("XDG_CACHE_HOME", super::target().canonicalize().unwrap().join("test-cache"));
        command
    }

    /// The command, to which its system gives this many file descriptors.
    pub fn command_within(&self, descriptors: u32, args: &[&str]) -> Command {
        let plain = self.command(args);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")).arg(plain.get_program());
        command.args(plain.get_args()).current_dir(&self.folder);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.status, 0, "{args:?}: {said:#?}");
        said.stdout
    }
}

/// A configuration with signal types, each with its name, its guest and further lines.
pub fn config(url: &str, signals: &[(&str, &str, &str)]) -> String {
    let mut text = format!("[database]\nurl = {url:?}\n");
    for (name, guest, more) in signals {
        let plugin = super::guest(guest);
        text += &format!("[signals.{name}]\nplugin = {plugin:?}\n{more}\n");
    }
    text
}

/// Sends SIGTERM.
pub fn terminate(process: &Child) {
    send(process, "TERM");
}

/// Sends a signal: `TERM`, `INT`.
pub fn send(process: &Child, signal: &str) {
    let kill = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

impl Said {
    /// Parses standard output, which must be one JSON document and nothing else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
