//! A narrow wrapper around wasmtime: configuration, linker, compiled components, and the clock.
//!
//! The rest of the host must not configure wasmtime itself. `load` compiles plugins with this engine;
//! `call` makes stores in it.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher};
use std::num::{NonZero, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random, sockets};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::allowance::{Allowance, Allowances};
use super::compiler::{Compiler, Turn, Turns, Uncompiled, Workers};
use super::debug_info::Place;
use super::descriptors::Descriptors;
use super::guest::State;
use super::http::{self, Clients};
use super::limits::{Meter, Processors};
use super::publishing;
use super::spec::PluginSpec;
use super::tcp;
use super::wit;
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

/// Memories that the instances of all plugins may hold at once; nearly every instance has one.
const MEMORIES: u32 = 256;
const TABLES_PER_MEMORY: u32 = 8;
/// Bytes of compiled code that the cache keeps, for each version of wasmtime: more than what is in use, since what is
/// removed must be compiled again.
const MOST_CACHED: u64 = 4 << 30;
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

/// Returns how many slots an instance of a component takes.
pub(super) fn slots(component: &Component) -> u32 {
    let Some(needs) = component.resources_required() else {
        return Meter::MEMORIES;
    };
    needs.num_memories.max(needs.num_tables.div_ceil(TABLES_PER_MEMORY)).clamp(1, Meter::MEMORIES)
}

fn config(cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Guest calls are synchronous; support for asynchronous ones triples the cost of an empty call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(20))
        // A worker process reads it, if it is needed.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .cache(cache);
    config
}

/// Compiles a component into a cache, unless it is there, for an [`Engine`] that reads it. `scratch` is a folder within the
/// cache that nobody else uses; `small`: for a small address space.
pub(super) fn compile_into(folder: &Path, scratch: &Path, small: bool, bytes: &[u8]) -> anyhow::Result<()> {
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

fn open_cache(folder: &Path) -> anyhow::Result<Cache> {
    let unusable = || format!("plugin cache \"{}\" is not usable", folder.display());
    let mut cache = CacheConfig::new();
    cache.with_directory(std::path::absolute(folder).with_context(unusable)?);
    Cache::new(cache).map_err(anyhow::Error::from).with_context(unusable)
}

/// Preallocates slots for instances. This reserves addresses only; a few slots stay resident for the
/// next instance.
fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MEMORIES)
        .total_core_instances(MEMORIES * 256)
        .total_memories(MEMORIES)
        .total_tables(MEMORIES * TABLES_PER_MEMORY)
        .total_stacks(MEMORIES)
        .max_core_instances_per_component(256)
        .max_memories_per_component(Meter::MEMORIES)
        .max_tables_per_component(Meter::TABLES)
        .max_tables_per_module(Meter::TABLES)
        .max_memories_per_module(Meter::MEMORIES)
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(8)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        // Without the kernel's help, keeping pages resident is slower than not keeping them.
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Configures an engine for a small address space: no pool, and few more addresses per memory than it
/// uses. Every access is checked, which costs about a seventh.
fn frugal(config: &mut Config) -> &mut Config {
    config.memory_reservation(1 << 20).memory_reservation_for_growth(16 << 20).memory_guard_size(64 << 10)
}

/// Links everything that a plugin may import. Imports without their grant were refused before; each
/// use of a grant is checked again.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    wit::Plugin::add_to_linker::<_, HasSelf<State>>(l, |state| state)?;
    publishing::add_to_linker(l)?;
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(l)?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    http::add_to_linker(l)?;
    sockets::instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sockets::network::add_to_linker::<State, WasiSockets>(l, &sockets::network::LinkOptions::default(), State::sockets)?;
    tcp::add_to_linker(l)?;
    // Standard libraries import UDP together with TCP; every use of UDP fails.
    sockets::udp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sockets::udp_create_socket::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    Ok(linker)
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
