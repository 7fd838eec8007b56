//! A narrow wrapper around wasmtime: configuration, linker, compiled components, and the clock.
//!
//! The rest of the host must not configure wasmtime itself. `load` compiles plugins with this engine;
//! `call` makes stores in it.

mod cache;
mod config;
mod linker;

use std::collections::HashMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Cache;
use wasmtime::component::{Component, Linker};

use super::allowance::{Allowance, Allowances};
use super::compiler::{Compiler, Uncompiled, Workers};
use super::debug_info::Place;
use super::descriptors::Descriptors;
use super::guest::State;
use super::http::Clients;
use super::limits::Processors;
use super::publishing;
use super::spec::PluginSpec;
use super::turns::{Turn, Turns};
pub(super) use cache::compile_into;
use cache::open_cache;
pub(super) use config::slots;
use config::{MEMORIES, config, frugal, pool};
use linker::linker;
use signalbus_shares::{Measure, Pool, Share};

/// Compiles and runs plugins. A process has one engine; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

struct Parts {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    clients: Clients,
    descriptors: Arc<Descriptors>,
    /// The memories that the instances of all plugins may hold together.
    room: Arc<Pool>,
    /// The guests that may run a long computation at the same time.
    processors: Arc<Pool>,
    /// The HTTP responses that plugins may await at the same time.
    heads: Arc<Pool>,
    /// The messages that are being published.
    publishing: Arc<Pool>,
    /// Shares of the types that are not loaded yet.
    kept: Mutex<Vec<Share>>,
    /// What plugins may log.
    logging: Arc<Allowances>,
    cache: Option<Cache>,
    /// What compiles; without it, this process does.
    workers: Option<Workers>,
    /// The files that are held in memory.
    reading: Turns,
    /// Whether components are compiled for a small address space.
    frugal: bool,
    /// A cache for as long as the process lives.
    _own_cache: Option<TempDir>,
    /// Components that are loaded or being compiled, by digest.
    components: Mutex<HashMap<String, Arc<Mutex<Weak<Component>>>>>,
    /// The files that are loaded at the same time: each takes a thread, of which there must be some left.
    loads: Semaphore,
    /// Held once by every loaded plugin, to count them.
    alive: Arc<()>,
}

/// How long a guest runs before it yields, and by how much it may overrun its deadline.
const TICK: Duration = Duration::from_millis(10);

/// HTTP responses that may be awaited at once: the client buffers up to 400 KiB until the head of one is complete.
const HEADS: u32 = 512;
/// A fraction of the threads that the runtime has for what blocks.
const LOADS: usize = 128;

impl Engine {
    /// Starts the engine and its clock thread. Compiled code is cached in the directory `cache`, if one
    /// is given and usable.
    ///
    /// # Errors
    ///
    /// The processor is not supported, or there is no folder for what a [`Compiler::Command`] compiles.
    pub fn new(cache: Option<PathBuf>, compiler: Compiler) -> anyhow::Result<Self> {
        let mut cache = cache.as_deref().and_then(|folder| match open_cache(folder) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(target: "plugin", error = format!("{error:#}"), "plugin cache disabled");
                None
            }
        });
        let (mut workers, mut own_cache) = (None, None);
        if let Compiler::Command(command) = compiler {
            workers = Some(Workers::new(command));
            if cache.is_none() {
                let folder = own_cache.insert(TempDir::with_prefix("signalbus-").context("make a folder for compiled plugins")?);
                cache = Some(open_cache(folder.path())?);
            }
        }
        let mut config = config(cache.clone());
        // What no worker has compiled cannot be loaded.
        config.enable_compiler(workers.is_none());
        // This fails where the address space is too small for the pool.
        let pooled = wasmtime::Engine::new(config.clone().allocation_strategy(pool()));
        let small = pooled.is_err();
        let engine = pooled
            .or_else(|_| wasmtime::Engine::new(frugal(&mut config)))
            .map_err(anyhow::Error::from)
            .context("start the WebAssembly engine")?;
        let linker = linker(&engine)?;
        start_clock(&engine).context("start the plugin clock")?;
        let room = Pool::new(MEMORIES, Measure::Units);
        // One processor stays free for everything else.
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let processors = u32::try_from(processors.saturating_sub(1).max(1)).unwrap_or(u32::MAX);
        let processors = Pool::new(processors, Measure::Time);
        let (clients, descriptors) = (Clients::default(), Arc::new(Descriptors::new()));
        let components = Mutex::default();
        Ok(Self(Arc::new(Parts {
            engine,
            linker,
            clients,
            descriptors,
            room,
            processors,
            heads: Pool::new(HEADS, Measure::Units),
            publishing: Pool::new(publishing::UNITS, Measure::Units),
            kept: Mutex::default(),
            logging: Arc::default(),
            cache,
            workers,
            reading: Turns::new(1),
            frugal: small,
            _own_cache: own_cache,
            components,
            loads: Semaphore::new(LOADS),
            alive: Arc::default(),
        })))
    }

    /// Keeps a share for each of these signal types, loaded or not, until the next call: what loads late must not find
    /// that others have taken everything.
    pub fn keep_shares(&self, specs: impl IntoIterator<Item = PluginSpec>) {
        let shares = specs.into_iter().flat_map(|PluginSpec { signal_type, grants, .. }| {
            let heads = (!grants.http.is_empty()).then(|| self.heads(&signal_type));
            let publishing = (!grants.connections.is_empty()).then(|| self.publishing(&signal_type));
            [Some(self.room(&signal_type)), heads, publishing]
        });
        let shares = shares.flatten().collect();
        // The new ones exist before the old ones go.
        *self.0.kept.lock().unwrap_or_else(PoisonError::into_inner) = shares;
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.engine
    }

    /// Returns the compiled component of a file. It is read from the cache, or compiled, only once, even
    /// if several signal types load it at the same time.
    pub(super) fn component(&self, digest: &str, bytes: &[u8]) -> wasmtime::Result<Arc<Component>> {
        let mut components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        // A component that somebody waits for is held by more than this map.
        components
            .retain(|_, place| Arc::strong_count(place) > 1 || place.lock().is_ok_and(|component| component.strong_count() > 0));
        let place = components.entry(digest.to_owned()).or_default().clone();
        // Meanwhile, other components may be compiled.
        let mut place = {
            drop(components);
            place.lock().unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(component) = place.upgrade() {
            return Ok(component);
        }
        let component = Arc::new(Component::new(&self.0.engine, bytes)?);
        *place = Arc::downgrade(&component);
        Ok(component)
    }

    /// Whether components are compiled by worker processes. Then [`component`](Self::component) only reads what these
    /// have put into the cache, and fails if there is nothing, or nothing that can be read.
    pub(super) fn has_workers(&self) -> bool {
        self.0.workers.is_some()
    }

    /// Lets a worker process compile a file of so many bytes into the cache, unless it is there. Blocks.
    pub(super) fn compile(&self, digest: &str, size: usize, read: &dyn Fn() -> Result<Vec<u8>, String>) -> Result<(), String> {
        let (Some(workers), Some(cache)) = (&self.0.workers, &self.0.cache) else { return Ok(()) };
        workers.compile(&Uncompiled { digest, size, read }, cache.directory(), self.0.frugal)
    }

    /// Waits until few enough files are held in memory, but not for ever: a disk may hang.
    pub(super) fn reading(&self) -> Option<Turn<'_>> {
        self.0.reading.take(0, Duration::from_secs(10))
    }

    /// Returns names and source lines of places in a component, if a worker process can find them. Blocks.
    pub(super) fn locate(&self, read: &dyn Fn() -> Option<Vec<u8>>, places: &[Place]) -> Option<String> {
        self.0.workers.as_ref()?.locate(read, places).ok()
    }

    pub(super) fn linker(&self) -> &Linker<State> {
        &self.0.linker
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.0.clients
    }

    pub(super) fn descriptors(&self) -> &Arc<Descriptors> {
        &self.0.descriptors
    }

    /// Returns the numbers of cache hits and misses.
    pub(super) fn cache(&self) -> (usize, usize) {
        self.0.cache.as_ref().map_or((0, 0), |cache| (cache.cache_hits(), cache.cache_misses()))
    }

    /// Waits until few enough files are being loaded.
    pub(super) async fn loading(&self) -> Option<SemaphorePermit<'_>> {
        self.0.loads.acquire().await.ok()
    }

    /// Counts one more loaded plugin until the returned value is dropped.
    pub(super) fn count(&self) -> Arc<()> {
        self.0.alive.clone()
    }

    /// Returns the number of loaded plugins, including replaced ones that finish their last batches.
    pub fn generations(&self) -> usize {
        Arc::strong_count(&self.0.alive) - 1
    }

    /// Returns a signal type's share of the room for instances; an instance takes as many units as [`slots`] says.
    pub(super) fn room(&self, signal_type: &str) -> Share {
        self.0.room.share(signal_type)
    }

    /// Returns a signal type's share of the HTTP responses that may be awaited.
    pub(super) fn heads(&self, signal_type: &str) -> Share {
        self.0.heads.share(signal_type)
    }

    /// Returns a signal type's share of the messages that are being published.
    pub(super) fn publishing(&self, signal_type: &str) -> Share {
        self.0.publishing.share(signal_type)
    }

    /// Returns how much a signal type's plugins may log.
    pub(super) fn logging(&self, signal_type: &str) -> Arc<Allowance> {
        self.0.logging.of(signal_type)
    }

    /// Returns a signal type's share of the processors.
    pub(super) fn processors(&self, signal_type: &str) -> Processors {
        Processors::new(self.0.processors.share(signal_type))
    }
}

/// Starts the thread that advances the engine's clock. A task would not do: a guest that spins may
/// hold the thread that drives the runtime's timers.
fn start_clock(engine: &wasmtime::Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("plugin-clock".to_owned()).spawn(tick)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// The files in a cache, but for what wasmtime notes about them.
    fn artifacts(cache: &Path) -> Vec<PathBuf> {
        let versions = std::fs::read_dir(cache.join("modules")).unwrap().map(|version| version.unwrap().path());
        let files = versions.flat_map(|version| std::fs::read_dir(version).unwrap()).map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_none()).collect()
    }

    /// What the cache has lost, and what a disk has spoilt, is for a worker to compile, never for the relay.
    #[test]
    fn with_workers_only_what_they_have_compiled_is_loaded() {
        let cache = TempDir::new().unwrap();
        let engine = Engine::new(Some(cache.path().to_owned()), Compiler::Command("/nowhere/worker".into())).unwrap();
        let load = || engine.component("sha256:1", EMPTY).map(drop);
        let compiled = || compile_into(cache.path(), &TempDir::new_in(cache.path()).unwrap().keep(), engine.0.frugal, EMPTY);
        assert!(load().is_err(), "it was compiled in this process");
        compiled().unwrap();
        load().unwrap();
        let files = artifacts(cache.path());
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::write(&files[0], "spoilt").unwrap();
        assert!(load().is_err(), "it was compiled in this process");
        compiled().unwrap();
        load().unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        assert!(load().is_err() && artifacts(cache.path()).is_empty(), "it was compiled in this process");
    }

    #[test]
    fn concurrent_loads_compile_a_component_once() {
        let engine = Engine::new(None, Compiler::InProcess).unwrap();
        let all: Vec<Arc<Component>> = std::thread::scope(|scope| {
            let ask = || engine.component("sha256:1", EMPTY).unwrap();
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|component| Arc::ptr_eq(component, &all[0])));
        assert!(!Arc::ptr_eq(&engine.component("sha256:2", EMPTY).unwrap(), &all[0]));
        drop(all);
        engine.component("sha256:3", EMPTY).unwrap();
        let kept = engine.0.components.lock().unwrap().len();
        assert_eq!(kept, 1, "unused components are dropped");
    }
}
