//! What a plugin is loaded from.

use std::path::PathBuf;
use std::sync::Arc;

use super::{CallLog, Connections, Grants, Limits};

/// What a signal type's plugin is made from, again and again.
#[derive(Clone, Debug, Default)]
pub struct PluginSpec {
    pub signal_type: String,
    pub path: PathBuf,
    /// `sha256:…`; no other file is accepted.
    pub digest: Option<String>,
    pub limits: Limits,
    pub grants: Grants,
    /// What it may publish through.
    pub connections: Connections,
    /// Takes down what it says, instead of the log.
    pub call_log: Option<Arc<CallLog>>,
}
