//! The `signalbus` command. Everything it does is in the library beside it; next: `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    signalbus::cli::run()
}
