//! The `signalbus` command, run as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A project: a folder with a `signalbus.toml` in it.
pub struct Project {
    folder: PathBuf,
}

/// What a command said.
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

    /// The command, to be run in the project's folder. Compiled plugins are kept for all tests.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbus"));
        command.args(args).current_dir(&self.folder).env_remove("SIGNALBUS_CONFIG").env_remove("RUST_LOG");
        command.env("XDG_CACHE_HOME", super::target().canonicalize().unwrap().join("test-cache"));
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// Runs a command that must succeed, and gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.status, 0, "{args:?}: {said:#?}");
        said.stdout
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
