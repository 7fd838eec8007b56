//! Loads a plugin from its file: checks, compiles and links it.
//!
//! A file that fails any check must never be called. `inspect` checks imports and exports, `engine`
//! compiles; `generations` replaces a loaded plugin by the next.

mod error;
mod read;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};
use wasmtime::component::{Component, InstancePre};

use super::backtrace::Backtrace;
use super::engine::{self, Engine};
use super::guest::State;
use super::inspect::{self, Export, Exports, NoExport, Refused};
use super::limits::{Limits, Processors};
use super::plugin_context::PluginContext;
use super::spec::PluginSpec;
use super::turns::Turn;
use super::wit::exports::signalbus::plugin::{bulk_sender, ordered_sender, sender};
pub use error::LoadError;
pub use read::digest;
pub(super) use read::digest_of;
use read::{read, short};
use signalbus_core::signal::SignalType;
use signalbus_shares::Share;
use signalbus_telemetry as telemetry;

/// One loaded generation of a plugin: compiled, linked, its imports checked.
pub struct Plugin {
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<State>,
    /// Kept so that other signal types share the compiled component.
    _component: Arc<Component>,
    entry: Entry,
    /// The same for an ordered signal type, if the plugin keeps the order.
    ordered_entry: Option<Entry>,
    /// How much of the engine's room one instance takes.
    pub(super) slots: u32,
    pub(super) room: Share,
    pub(super) processors: Processors,
    pub(super) limits: Limits,
    /// The time limit of a call, as an attribute of the call.
    pub(super) timeout_ms: String,
    pub(super) context: PluginContext,
    /// Failure locations that have been reported.
    pub(super) reported: Mutex<HashSet<Vec<(u32, u64)>>>,
    path: PathBuf,
    digest: String,
    imports: Vec<String>,
    /// Counts as a loaded plugin until dropped.
    _alive: Arc<()>,
}

/// The exported function that a call enters.
pub(super) enum Entry {
    Runs(ordered_sender::GuestIndices),
    Bulk(bulk_sender::GuestIndices),
    Single(sender::GuestIndices),
}

impl Entry {
    fn find(pre: &InstancePre<State>, export: Export) -> wasmtime::Result<Self> {
        Ok(match export {
            Export::Runs => Self::Runs(ordered_sender::GuestIndices::new(pre)?),
            Export::Bulk => Self::Bulk(bulk_sender::GuestIndices::new(pre)?),
            Export::Single => Self::Single(sender::GuestIndices::new(pre)?),
        })
    }
}

impl Plugin {
    /// Loads the plugin of a signal type from its file. Compiles on a blocking thread.
    ///
    /// # Errors
    ///
    /// The file is not a plugin that this relay can run with these grants.
    pub async fn load(engine: &Engine, spec: &PluginSpec) -> Result<Self, LoadError> {
        let PluginSpec { signal_type, path, digest, limits, grants, connections, call_log } = spec.clone();
        let mut context = PluginContext::for_plugin(&name(&path), &signal_type);
        (context.grants, context.connections, context.call_log) = (Arc::new(grants), Arc::new(connections), call_log);
        context.allowance = engine.logging(&signal_type);
        let file = File { path: path.clone(), wanted: digest };
        let permit = engine.loading().await;
        let begun = Instant::now();
        let loading = engine.clone();
        let loading = tokio::task::spawn_blocking(move || file.load(loading, limits, context));
        match with_progress(loading, &name(&path), &signal_type).await {
            Ok(loaded) => {
                drop(permit);
                let plugin = loaded?;
                telemetry::compiled(&signal_type, begun.elapsed(), engine.cache());
                plugin.try_instance().await.map_err(|reason| LoadError::Start { path, reason })?;
                Ok(plugin)
            }
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(stopped) => Err(LoadError::Unreadable { path, reason: stopped.to_string() }),
        }
    }

    /// Returns the name of this generation: `sha256:` and the file's digest in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes a backtrace, with source lines if they can be found and the file is still the same.
    pub(super) async fn written(&self, backtrace: &Backtrace) -> String {
        let (engine, path, loaded, places) = (self.engine.clone(), self.path.clone(), self.digest.clone(), backtrace.places());
        let locate = move || engine.locate(&|| read(&path).ok().filter(|bytes| digest(bytes) == loaded), &places);
        let located = tokio::task::spawn_blocking(locate).await.ok().flatten();
        backtrace.written(located.as_deref().unwrap_or_default())
    }

    /// Returns the function that sends signals of a type with or without order.
    pub(super) fn entry(&self, ordered: bool) -> &Entry {
        self.ordered_entry.as_ref().filter(|_| ordered).unwrap_or(&self.entry)
    }

    /// Returns whether the plugin keeps the order of runs by itself.
    pub fn takes_runs(&self) -> bool {
        matches!(self.entry(true), Entry::Runs(_))
    }

    /// Returns whether a call can take several signals of this type.
    pub fn takes_many(&self, signal_type: &SignalType) -> bool {
        match self.entry(signal_type.is_ordered()) {
            Entry::Runs(_) => true,
            Entry::Bulk(_) => !signal_type.is_ordered() || signal_type.attribute("order_key").is_some(),
            Entry::Single(_) => false,
        }
    }

    /// Returns the interfaces that the plugin imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Plugin")
            .field("context", &self.context)
            .field("digest", &self.digest)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Returns a plugin's name for log lines: its file's, or its folder's if the file is `plugin.wasm`, as
/// in every project.
fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    let folder = path.parent().and_then(Path::file_name).filter(|_| stem == "plugin");
    folder.unwrap_or(stem).to_string_lossy().into_owned()
}

/// Waits for a plugin to load, and logs progress: components with an interpreter take many seconds to
/// compile.
async fn with_progress<T>(mut loading: JoinHandle<T>, plugin: &str, signal_type: &str) -> Result<T, JoinError> {
    let begun = Instant::now();
    let mut patience = Duration::from_secs(1);
    loop {
        match tokio::time::timeout(patience, &mut loading).await {
            Ok(loaded) => return loaded,
            Err(_) => telemetry::compiling(plugin, signal_type, begun.elapsed()),
        }
        patience = Duration::from_secs(5);
    }
}

/// A file to load a plugin from.
struct File {
    path: PathBuf,
    wanted: Option<String>,
}

/// What is in it.
struct Content<'a> {
    bytes: Vec<u8>,
    digest: String,
    /// The bytes are held in memory no longer than this.
    _reading: Option<Turn<'a>>,
}

impl File {
    fn load(self, engine: Engine, limits: Limits, mut context: PluginContext) -> Result<Plugin, LoadError> {
        let path = || self.path.clone();
        let held = engine.clone();
        let (component, Content { bytes, digest, _reading }) = self.component(&held)?;
        context.generation = short(&digest).into();
        let Exports { plain, runs } = self.exports(&engine, &component)?;
        let imports = self.imports(&engine, &component, &bytes, &context)?;
        if !context.grants.tcp.is_empty() || !context.grants.http.is_empty() {
            context.descriptors = Some(engine.descriptors().account(&context.signal_type));
        }
        if imports.iter().any(|import| import.starts_with("wasi:http/")) {
            let idle = engine.descriptors().idle(context.grants.http.len());
            let client = engine.clients().for_grants(&context.signal_type, &context.grants, idle);
            context.heads = Some(engine.heads(&context.signal_type).into());
            context.client = Some(client.map_err(|reason| LoadError::NoHttp { path: path(), reason })?);
        }
        if !context.connections.is_empty() {
            context.publishing = Some(engine.publishing(&context.signal_type).into());
        }
        let link = |error: wasmtime::Error| LoadError::Link { path: path(), reason: format!("{error:#}") };
        let pre = engine.linker().instantiate_pre(&component).map_err(link)?;
        let entry = |export| Entry::find(&pre, export).map_err(link);
        let (entry, ordered_entry) = (entry(plain)?, runs.then(|| entry(Export::Runs)).transpose()?);
        let slots = engine::slots(&component);
        let (room, processors) = (engine.room(&context.signal_type), engine.processors(&context.signal_type));
        let alive = engine.count();
        let timeout_ms = limits.timeout.as_millis().to_string();
        let reported = Mutex::default();
        Ok(Plugin {
            engine,
            pre,
            _component: component,
            entry,
            ordered_entry,
            slots,
            room,
            processors,
            limits,
            timeout_ms,
            context,
            reported,
            path: self.path.clone(),
            digest,
            imports,
            _alive: alive,
        })
    }

    /// Reads the file, and returns its component once it is compiled.
    fn component<'a>(&self, engine: &'a Engine) -> Result<(Arc<Component>, Content<'a>), LoadError> {
        let unreadable = |reason| LoadError::Unreadable { path: self.path.clone(), reason };
        let uncompiled = |reason| LoadError::Compile { path: self.path.clone(), reason };
        let reading = engine.reading();
        let bytes = read(&self.path).map_err(unreadable)?;
        let digest = self.digest(&bytes)?;
        self.check_header(&bytes)?;
        let loaded = engine.component(&digest, &bytes).map_err(|error| uncompiled(format!("{error:#}")));
        if loaded.is_ok() || !engine.has_workers() {
            return Ok((loaded?, Content { bytes, digest, _reading: reading }));
        }
        // It may wait for long.
        let size = bytes.len();
        drop((bytes, reading));
        engine.compile(&digest, size, &|| self.read_again(&digest)).map_err(uncompiled)?;
        let reading = engine.reading();
        let bytes = self.read_again(&digest).map_err(unreadable)?;
        let component = engine.component(&digest, &bytes).map_err(|error| uncompiled(format!("{error:#}")))?;
        Ok((component, Content { bytes, digest, _reading: reading }))
    }

    fn read_again(&self, before: &str) -> Result<Vec<u8>, String> {
        let bytes = read(&self.path)?;
        if digest(&bytes) == before { Ok(bytes) } else { Err("it was changed while it was loaded".to_owned()) }
    }

    fn digest(&self, bytes: &[u8]) -> Result<String, LoadError> {
        let found = digest(bytes);
        match &self.wanted {
            Some(wanted) if !wanted.eq_ignore_ascii_case(&found) => {
                Err(LoadError::Digest { path: self.path.clone(), found, wanted: wanted.clone() })
            }
            _ => Ok(found),
        }
    }

    /// Checks the bytes after the magic number, which distinguish a component from a core module.
    fn check_header(&self, bytes: &[u8]) -> Result<(), LoadError> {
        let path = self.path.clone();
        match bytes.get(..8) {
            Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
            Some([0, b'a', b's', b'm', _, _, 0, 0]) => Err(LoadError::CoreModule { path }),
            _ => Err(LoadError::NotAComponent { path }),
        }
    }

    fn exports(&self, engine: &Engine, component: &Component) -> Result<Exports, LoadError> {
        let path = self.path.clone();
        let interface = component.component_type();
        inspect::exports(interface.exports(engine.wasmtime()).map(|(name, _)| name)).map_err(|fault| match fault {
            NoExport::Version(export) => LoadError::UnknownVersion { path, export },
            NoExport::Missing => LoadError::NoSender { path },
        })
    }

    fn imports(
        &self,
        engine: &Engine,
        component: &Component,
        bytes: &[u8],
        context: &PluginContext,
    ) -> Result<Vec<String>, LoadError> {
        let path = self.path.clone();
        let interface = component.component_type();
        let names: Vec<&str> = interface.imports(engine.wasmtime()).map(|(name, _)| name).collect();
        let Refused { mut ungranted, unknown } = inspect::refused(names.iter().copied(), &context.grants);
        // Interpreters always import sockets; without the grant, each use of them is refused.
        if ungranted.iter().any(|(_, grant)| *grant == inspect::GRANT_TCP) && inspect::is_interpreted(bytes) {
            ungranted.retain(|(_, grant)| *grant != inspect::GRANT_TCP);
        }
        if !ungranted.is_empty() {
            let grants: BTreeSet<_> = ungranted.iter().map(|(_, grant)| *grant).collect();
            grants.iter().for_each(|grant| telemetry::needs(&context.signal_type, grant));
            Err(LoadError::Ungranted { path, imports: ungranted })
        } else if !unknown.is_empty() {
            Err(LoadError::UnknownImports { path, imports: unknown })
        } else if let Some(connection) = ungranted_connection(&names, context) {
            Err(LoadError::NoConnection { path, connection })
        } else {
            Ok(names.into_iter().map(str::to_owned).collect())
        }
    }
}

/// Returns the connection in the setting `connection` if the plugin publishes and it is not granted.
fn ungranted_connection(imports: &[&str], PluginContext { grants, connections, .. }: &PluginContext) -> Option<String> {
    let producers = ["signalbus:plugin/producer@", "signalbus:plugin/ordered-producer@"];
    let publishes = imports.iter().any(|import| producers.iter().any(|producer| import.starts_with(producer)));
    let connection = grants.setting("connection").filter(|_| publishes)?;
    let granted = connections.is_open() || grants.connections.iter().any(|granted| granted.name == connection);
    (!granted).then(|| connection.to_owned())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::Compiler;

    fn refusal(bytes: &[u8], digest: Option<&str>) -> LoadError {
        let directory = std::env::temp_dir().join(format!("signalbus-load-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{:x}.wasm", Sha256::digest(bytes)[0]));
        std::fs::write(&path, bytes).unwrap();
        let engine = Engine::new(None, Compiler::InProcess).unwrap();
        let context = PluginContext::for_plugin("p", "T");
        let file = File { path, wanted: digest.map(str::to_owned) };
        file.load(engine, Limits::default(), context).unwrap_err()
    }

    #[test]
    fn files_that_are_not_components_are_distinguished() {
        assert!(matches!(refusal(b"\0asm\x01\0\0\0", None), LoadError::CoreModule { .. }));
        assert!(matches!(refusal(b"#!/bin/sh\n", None), LoadError::NotAComponent { .. }));
        assert!(matches!(refusal(b"", None), LoadError::NotAComponent { .. }));
        assert!(matches!(refusal(b"\0asm\x0d\0\x01\0\xff", None), LoadError::Compile { .. }));
        assert!(matches!(refusal(b"\0asm\x0d\0\x01\0", None), LoadError::NoSender { .. }));
    }

    #[test]
    fn a_plugin_is_named_after_its_file_or_its_folder() {
        let names = ["plugins/mailer.wasm", "mailer/plugin.wasm", "plugin.wasm"].map(|path| name(Path::new(path)));
        assert_eq!(names, ["mailer", "mailer", "plugin"]);
    }

    #[test]
    fn a_wrong_digest_is_reported_with_both_digests() {
        let error = refusal(b"abc", Some("sha256:00")).to_string();
        let found = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(error.contains(found) && error.contains("\"sha256:00\""), "{error}");
        let same = refusal(b"abc", Some(&found.to_uppercase()));
        assert!(matches!(same, LoadError::NotAComponent { .. }));
    }

    #[test]
    fn a_missing_file_is_named() {
        let file = File { path: "/nowhere/p.wasm".into(), wanted: None };
        let context = PluginContext::for_plugin("p", "T");
        let error = file.load(Engine::new(None, Compiler::InProcess).unwrap(), Limits::default(), context).unwrap_err();
        assert!(error.to_string().starts_with("plugin \"/nowhere/p.wasm\" cannot be read: "));
    }
}
