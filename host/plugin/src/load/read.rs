//! Reads a plugin's file, and names it by its digest.
//!
//! Must never wait for a pipe, nor read more than a plugin can be. Next: `generations`, which compares digests.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

/// Returns the digest of a file, if it can be read. Hashes on a blocking thread.
pub(crate) async fn digest_of(path: PathBuf) -> Option<String> {
    let hash = move || read(&path).ok().map(|bytes| digest(&bytes));
    tokio::task::spawn_blocking(hash).await.ok().flatten()
}

/// Reads a plugin's file, once, whatever takes its place meanwhile.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    // A pipe would keep whoever opens it waiting.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // It may grow.
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > LARGEST {
        true => Err(format!("it is larger than {} MiB, which no plugin needs", LARGEST >> 20)),
        false => Ok(bytes),
    }
}

/// The largest file that is loaded: several times the largest of a language with an interpreter.
const LARGEST: u64 = 128 << 20;

/// Returns the name of a generation: `sha256:` and the digest of its file in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Shortens a digest for log lines.
pub(super) fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..12).unwrap_or(digits)
}
