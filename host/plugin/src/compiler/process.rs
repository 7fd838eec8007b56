//! One worker process: what it is given, what it answers, and why it failed.
//!
//! Must never outlive its use. Next: `worker`, what it does.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::{Limit, Workers};
use crate::limits::Size;
use crate::worker::REFUSED;
use signalbus_core::text;

/// A worker process, which does not outlive its use.
pub(super) struct Running(pub(super) Child);

impl Running {
    const CHECK: Duration = Duration::from_millis(5);
    /// The longest answer.
    const LONGEST: u64 = 64 << 10;

    /// Returns what it has written; or why it has failed, and whether its time was over.
    pub(super) fn answer(mut self, limit: &Limit, bytes: &[u8]) -> Result<String, (String, bool)> {
        let status = std::thread::scope(|scope| {
            if let Some(mut input) = self.0.stdin.take() {
                // If it has died, its status tells.
                scope.spawn(move || input.write_all(bytes));
            }
            let ended = self.ended(limit);
            if ended.is_err() {
                // What it does not read would be written for ever.
                let _ = self.0.kill();
            }
            ended
        })?;
        let (mut answer, mut reason) = (Vec::new(), Vec::new());
        if let (Some(output), Some(errors)) = (self.0.stdout.take(), self.0.stderr.take()) {
            // What does not fit is no answer.
            let _ = output.take(Self::LONGEST).read_to_end(&mut answer);
            let _ = errors.take(Self::LONGEST).read_to_end(&mut reason);
        }
        match status.success() {
            true => Ok(String::from_utf8_lossy(&answer).into_owned()),
            false => Err(failure(status, limit, &String::from_utf8_lossy(&reason))),
        }
    }

    /// Waits for its end.
    fn ended(&mut self, limit: &Limit) -> Result<ExitStatus, (String, bool)> {
        let most = Duration::from_secs(limit.seconds) * Workers::SLOWNESS;
        let begun = Instant::now();
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if begun.elapsed() < most => {
                    std::thread::sleep(Self::CHECK.max(begun.elapsed() / 16).min(Self::CHECK * 10));
                }
                Ok(None) => return Err((format!("it takes more than {} minutes", most.as_secs() / 60), true)),
                Err(error) => return Err((error.to_string(), false)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why a worker process failed, and whether its processor time was over.
fn failure(status: ExitStatus, limit: &Limit, said: &str) -> (String, bool) {
    if status.code() == Some(REFUSED.into()) {
        return (said.to_owned(), false);
    }
    let exhausted = said.contains("memory allocation of") || said.contains("Cannot allocate memory");
    match status.signal() {
        _ if exhausted => {
            let memory = Size(usize::try_from(limit.memory).unwrap_or(usize::MAX));
            (format!("it takes more than {memory} of memory"), false)
        }
        Some(9 | 24) => (format!("it takes more than {} seconds of processor time", limit.seconds), true),
        _ => {
            let mut said = text::printable(said).trim().to_owned();
            text::cut(&mut said, 256);
            (format!("the process for it ended with {status}: {said}"), false)
        }
    }
}
