//! What stands in the place of HTTP in a binary that was built without it.

use std::sync::Arc;

use wasmtime::component::Linker;

use super::grants::Grants;
use super::logs::PluginContext;

const WITHOUT: &str = "this binary was built without HTTP: build it with the Cargo feature \"http\"";

/// No instance has one.
#[derive(Debug)]
pub(super) enum Client {}

#[derive(Default)]
pub(super) struct Clients;

impl Clients {
    /// Every plugin that imports `wasi:http` is refused here.
    #[expect(clippy::unused_self, reason = "it stands in for the real one")]
    pub(super) fn for_grants(&self, _: &Grants) -> Result<Arc<Client>, String> {
        Err(WITHOUT.to_owned())
    }
}

/// What a store holds for HTTP: nothing.
pub(super) struct Http;

impl Http {
    pub(super) fn new(_: PluginContext) -> Self {
        Self
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands in for the real one")]
pub(super) fn add_to_linker<T>(_: &mut Linker<T>) -> wasmtime::Result<()> {
    Ok(())
}

/// Private authorities are for HTTPS alone.
///
/// # Errors
/// Always.
pub fn check_authorities(_: &str) -> Result<(), String> {
    Err(WITHOUT.to_owned())
}
