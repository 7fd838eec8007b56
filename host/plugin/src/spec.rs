//! The specification that a plugin is loaded from.
//!
//! Holds everything that a later generation of the plugin is loaded with, too. Next: `load`, which reads
//! the file.

use std::path::PathBuf;
use std::sync::Arc;

use super::{CallLog, Connections, Grants, Limits};

/// Everything needed to load a signal type's plugin, and to load its later generations.
#[derive(Clone, Debug, Default)]
pub struct PluginSpec {
    pub signal_type: String,
    pub path: PathBuf,
    /// `sha256:…`; a file with another digest is refused.
    pub digest: Option<String>,
    pub limits: Limits,
    pub grants: Grants,
    /// The connections that it may publish through.
    pub connections: Connections,
    /// Collects its calls and log records, which then stay out of the relay's log.
    pub call_log: Option<Arc<CallLog>>,
}
