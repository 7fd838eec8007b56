//! Replaces `http` in a binary that is built without HTTP: plugins that import it are refused.
//!
//! Must offer the rest of the crate what `http` offers. `load` reports the refusal.

use std::sync::Arc;

use wasmtime::component::Linker;

use super::grants::Grants;
use super::guest::State;
use super::plugin_context::PluginContext;

const WITHOUT: &str = "this binary was built without HTTP: build it with the Cargo feature \"http\"";

/// Never instantiated.
#[derive(Debug)]
pub(super) enum Client {}

#[derive(Default)]
pub(super) struct Clients;

impl Clients {
    /// Refuses every plugin that imports `wasi:http`.
    #[expect(clippy::unused_self, reason = "has the signature of the real one")]
    pub(super) fn for_grants(&self, _: &str, _: &Grants, _: usize) -> Result<Arc<Client>, String> {
        Err(WITHOUT.to_owned())
    }
}

/// The HTTP part of a store's state: nothing.
pub(super) struct Http;

impl Http {
    pub(super) fn new(_: PluginContext, _: usize) -> Self {
        Self
    }
}

#[expect(clippy::unnecessary_wraps, reason = "has the signature of the real one")]
pub(super) fn add_to_linker(_: &mut Linker<State>) -> wasmtime::Result<()> {
    Ok(())
}

/// Refuses private authorities, which only HTTPS uses.
///
/// # Errors
/// Always.
pub fn check_authorities(_: &str) -> Result<(), String> {
    Err(WITHOUT.to_owned())
}
