//! The `signalbus` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    signalbus::cli::run()
}
