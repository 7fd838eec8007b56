//! What identifies a loaded plugin, and what it may use.
//!
//! Shared by all calls of one generation. Next: `load`, which fills it.

use std::sync::Arc;

use super::allowance::Allowance;
use super::call_log::CallLog;
use super::descriptors::Account;
use super::grants::Grants;
use super::http::Client;
use super::producer::Connections;
use signalbus_shares::Share;

/// What identifies a loaded plugin, and what it may use.
#[derive(Clone, Debug, Default)]
pub(super) struct PluginContext {
    /// The plugin's name in log lines.
    pub(super) plugin: Arc<str>,
    /// The first digits of the file's digest.
    pub(super) generation: Arc<str>,
    pub(super) signal_type: Arc<str>,
    pub(super) grants: Arc<Grants>,
    pub(super) connections: Arc<Connections>,
    /// Counts its file descriptors, if it may open any.
    pub(super) descriptors: Option<Arc<Account>>,
    /// Sends its HTTP requests, if it may send any.
    pub(super) client: Option<Arc<Client>>,
    /// Its type's share of the responses that are awaited, if it may send any requests.
    pub(super) heads: Option<Arc<Share>>,
    /// Its type's share of the messages that are being published, if it may publish any.
    pub(super) publishing: Option<Arc<Share>>,
    /// Collects its log records in place of the relay's log.
    pub(super) call_log: Option<Arc<CallLog>>,
    /// How much its type may log.
    pub(super) allowance: Arc<Allowance>,
}

impl PluginContext {
    /// Creates a context without grants and without a generation.
    pub(super) fn for_plugin(plugin: &str, signal_type: &str) -> Self {
        Self { plugin: plugin.into(), signal_type: signal_type.into(), ..Self::default() }
    }
}
