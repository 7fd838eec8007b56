//! The cache of compiled code: a worker process fills it, and the relay reads what is in it.
//!
//! Never keeps more than is allowed; the oldest goes first. Next: `worker`, which calls this in a process of its own.

use std::hash::{Hash as _, Hasher};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig};

use super::config::{config, frugal};

/// Bytes of compiled code that the cache keeps, for each version of wasmtime: more than what is in use, since what is
/// removed must be compiled again.
const MOST_CACHED: u64 = 4 << 30;

/// Compiles a component into a cache, unless it is there, for an [`Engine`](super::Engine) that reads it. `scratch` is a
/// folder within the cache that nobody else uses; `small`: for a small address space.
pub(crate) fn compile_into(folder: &Path, scratch: &Path, small: bool, bytes: &[u8]) -> anyhow::Result<()> {
    let cache = open_cache(folder)?;
    let set = |cache: &Cache| {
        let mut config = config(Some(cache.clone()));
        if small {
            frugal(&mut config);
        }
        config
    };
    let reading = wasmtime::Engine::new(set(&cache).enable_compiler(false))?;
    if Component::new(&reading, bytes).is_ok() {
        return Ok(());
    }
    // In a cache of its own, nobody else's files are in the way: those that are being written, or that a crash has left.
    let own_cache = open_cache(scratch)?;
    let compiling = wasmtime::Engine::new(&set(&own_cache))?;
    Component::new(&compiling, bytes)?;
    // Each engine looks for it under a name of its own.
    let [from, to] = [&compiling, &reading].map(|engine| artifact(engine, bytes));
    for version in std::fs::read_dir(own_cache.directory().join("modules"))?.flatten() {
        let kept = cache.directory().join("modules").join(version.file_name());
        std::fs::create_dir_all(&kept)?;
        std::fs::rename(version.path().join(&from), kept.join(&to))?;
        keep_within(&kept, MOST_CACHED)?;
    }
    let kept = Component::new(&reading, bytes).map(drop).map_err(anyhow::Error::from);
    kept.with_context(|| format!("compiled code cannot be kept in \"{}\"", cache.directory().display()))
}

/// Removes the oldest files of a folder until the others have at most this many bytes together. (What is read only is
/// never cleaned by wasmtime.)
fn keep_within(folder: &Path, most: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder)?.flatten() {
        if let Ok(metadata) = file.metadata() {
            files.push((metadata.modified()?, metadata.len(), file.path()));
        }
    }
    files.sort_unstable();
    let mut kept = 0;
    for (_, length, path) in files.into_iter().rev() {
        kept += length;
        if kept > most {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// Returns the name of the file with a component's code in wasmtime's cache.
fn artifact(engine: &wasmtime::Engine, bytes: &[u8]) -> String {
    let mut name = FileName(Sha256::new());
    // Without debug information in a file of its own, and without intrinsics.
    (engine.precompile_compatibility_hash(), bytes, None::<&[u8]>, None::<&str>).hash(&mut name);
    URL_SAFE_NO_PAD.encode(name.0.finalize())
}

/// Hashes what wasmtime's cache makes the name of a file from.
struct FileName(Sha256);

impl Hasher for FileName {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Is not used: the hash is longer.
    fn finish(&self) -> u64 {
        0
    }
}

pub(super) fn open_cache(folder: &Path) -> anyhow::Result<Cache> {
    let unusable = || format!("plugin cache \"{}\" is not usable", folder.display());
    let mut cache = CacheConfig::new();
    cache.with_directory(std::path::absolute(folder).with_context(unusable)?);
    Cache::new(cache).map_err(anyhow::Error::from).with_context(unusable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_oldest_compiled_code_goes_first() {
        let folder = TempDir::new().unwrap();
        for (age, name) in ["new", "old", "older"].iter().enumerate() {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age as u64)).unwrap();
        }
        let left = |most| {
            keep_within(folder.path(), most).unwrap();
            let names = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(30), ["new", "old", "older"]);
        assert_eq!(left(29), ["new", "old"]);
        assert_eq!(left(10), ["new"]);
    }
}
