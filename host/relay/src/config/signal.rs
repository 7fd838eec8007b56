//! A section of `[signals]`, with the defaults that it inherits.
//!
//! Touches neither its table nor its plugin. Next: `grants`, what the plugin may use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connections::Connection;
use super::reader::{Faults, Section};
use super::{grants, texts};
use signalbus_bus::ConnectionConfig;
use signalbus_core::backoff::Backoff;
use signalbus_core::settlement::Policy;
use signalbus_outbox::Source;
use signalbus_plugin::{ConnectionGrant, Connections, Grants, Limits, PluginSpec};

/// The configuration of a signal type.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalConfig {
    /// File, line and column of the section.
    pub place: String,
    pub source: Source,
    pub plugin: PathBuf,
    /// `sha256:…`; a file with another digest is rejected.
    pub digest: Option<String>,
    pub burst_count: usize,
    pub concurrency: usize,
    pub autoflush: bool,
    pub limits: Limits,
    pub policy: Policy,
    /// Including settings and secrets.
    pub grants: Grants,
    /// The granted connections.
    pub connections: Vec<ConnectionConfig>,
}

/// The most bytes in a batch, unless it is configured.
const BURST_BYTES: usize = 16 << 20;

pub(super) const SIGNAL_KEYS: &[&str] = &[
    "table",
    "view",
    "also_delete",
    "on_sent",
    "id",
    "version",
    "plugin",
    "digest",
    "order_by",
    "order_key",
    "on_dead",
    "burst_count",
    "burst_bytes",
    "concurrency",
    "autoflush",
    "instances",
    "timeout",
    "memory",
    "retry",
    "settings",
    "secrets",
    "grants",
];

impl SignalConfig {
    /// Returns the name of the signal type.
    pub fn name(&self) -> &str {
        &self.source.signal
    }

    /// Returns the same configuration with another place in the file, for comparisons.
    pub fn at(mut self, place: &str) -> Self {
        self.place = place.to_owned();
        self
    }

    /// Returns each grant of a connection, with the connection.
    pub fn granted_connections(&self) -> impl Iterator<Item = (&ConnectionGrant, &ConnectionConfig)> {
        self.grants.connections.iter().filter_map(|grant| {
            let connection = self.connections.iter().find(|connection| connection.name == grant.name)?;
            Some((grant, connection))
        })
    }

    /// Returns the specification of its plugin, without connections.
    pub fn spec(&self) -> PluginSpec {
        PluginSpec {
            signal_type: self.name().to_owned(),
            path: self.plugin.clone(),
            digest: self.digest.clone(),
            limits: self.limits,
            grants: self.grants.clone(),
            connections: Connections::default(),
            call_log: None,
        }
    }
}

/// Where a signal type's rows are, and how they are read and removed.
fn source(name: &str, section: &Section<'_>, faults: &mut Faults<'_>) -> Source {
    let table = section.string("table", faults).unwrap_or_else(|| snake_case(name));
    let on_dead = section.string("on_dead", faults);
    let source = Source {
        signal: name.to_owned(),
        table,
        view: section.string("view", faults),
        also_delete: section.strings("also_delete", faults),
        on_sent: on_sent(section, faults),
        order_by: section.strings("order_by", faults),
        order_key: section.strings("order_key", faults),
        id: section.string("id", faults),
        version: section.string("version", faults),
        burst_bytes: Some(section.size("burst_bytes", BURST_BYTES, faults)),
        holds_dead: on_dead.as_deref() == Some("hold"),
    };
    if on_dead.as_ref().is_some_and(|what| what != "skip" && what != "hold") {
        faults.add(section.place("on_dead"), format!("`{}` must be \"skip\" or \"hold\"", section.named("on_dead")));
    }
    if source.order_by.is_empty() && source.holds_dead {
        faults.add(section.place("on_dead"), format!("`{}` = \"hold\" requires `order_by`", section.named("on_dead")));
    }
    if source.order_by.is_empty() && !source.order_key.is_empty() {
        faults.add(section.place("order_key"), format!("`{}` requires `order_by`", section.named("order_key")));
    }
    source
}

pub(super) fn signal(
    name: &str,
    section: &Section<'_>,
    folder: &Path,
    connections: &[Connection],
    faults: &mut Faults<'_>,
) -> SignalConfig {
    let source = source(name, section, faults);
    if name.is_empty() || name.contains(':') || name.len() > 190 {
        faults.add(section.offset(), format!("invalid signal type name \"{name}\"; use 1 to 190 bytes without a colon"));
    }
    let plugin = section.string("plugin", faults);
    if plugin.is_none() && section.find("plugin").is_none() {
        faults.add(section.offset(), format!("`{}` is missing; set it to the path of a .wasm file", section.named("plugin")));
    }
    let plugin = plugin.unwrap_or_default();
    if plugin.starts_with("oci://") {
        faults.add(section.place("plugin"), "`oci://` is not supported yet; name a file");
    }
    let instances = section.string("instances", faults).unwrap_or_else(|| "fresh".into());
    if instances != "fresh" {
        faults.add(
            section.place("instances"),
            format!("`{}` must be \"fresh\"; \"warm\" is not supported yet", section.named("instances")),
        );
    }
    let timeout = section.duration("timeout", Limits::default().timeout, faults);
    if timeout.is_zero() {
        faults.add(section.place("timeout"), format!("`{}` must be longer than zero", section.named("timeout")));
    }
    let concurrency = section.number("concurrency", 4, 1, faults) as usize;
    let strict = !source.order_by.is_empty() && source.order_key.is_empty();
    let grants = grants::grants(section, connections, faults);
    let granted = |connection: &&Connection| grants.connections.iter().any(|grant| grant.name == connection.name);
    let connections: Vec<_> = connections.iter().filter(granted).filter_map(|connection| connection.config.clone()).collect();
    for connection in &connections {
        check_timeouts(section, timeout, connection, faults);
    }
    SignalConfig {
        place: faults.place(section.offset()),
        plugin: if plugin.is_empty() { PathBuf::new() } else { folder.join(plugin) },
        digest: section.string("digest", faults),
        burst_count: section.number("burst_count", 500, 1, faults) as usize,
        concurrency: if strict { 1 } else { concurrency },
        autoflush: section.boolean("autoflush", true, faults),
        limits: Limits { timeout, memory: section.size("memory", Limits::default().memory, faults) },
        policy: policy(section, &source, faults),
        connections,
        grants,
        source,
    }
}

/// Checks that a call of the plugin outlasts a call of a bus that hangs: the plugin would be blamed for it.
fn check_timeouts(section: &Section<'_>, timeout: Duration, connection: &ConnectionConfig, faults: &mut Faults<'_>) {
    let limit = connection.timeout();
    if timeout < limit + limit / 4 {
        faults.add(
            section.place("timeout"),
            format!(
                "`{}` ({timeout:?}) must be at least a quarter longer than `connections.{}.timeout` ({limit:?}), so that a bus \
                 that hangs is an outage",
                section.named("timeout"),
                connection.name
            ),
        );
    }
}

/// What a row is set to when it was sent, instead of being deleted.
fn on_sent(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    let Some(own) = section.section("on_sent", faults) else { return Vec::new() };
    own.refuse_unknown(&["set"], faults);
    let set = texts(&own, "set", faults);
    let named = section.named("on_sent");
    if set.is_empty() {
        faults.add(own.offset(), format!("`{named}` needs `set`, as in {{ set = {{ sent_at = \"CURRENT_TIMESTAMP\" }} }}"));
    }
    if section.find("view").is_none() {
        faults.add(own.offset(), format!("`{named}` needs a `view` that leaves out the rows that are marked"));
    }
    if section.find("also_delete").is_some() {
        faults.add(own.offset(), format!("`{named}` and `{}` exclude each other", section.named("also_delete")));
    }
    set
}

fn policy(section: &Section<'_>, source: &Source, faults: &mut Faults<'_>) -> Policy {
    let (ordered, holds_dead) = (!source.order_by.is_empty(), source.holds_dead);
    let mut policy = Policy { ordered, holds_dead, max_attempts: 20, backoff: Backoff::default() };
    let Some(retry) = section.section("retry", faults) else { return policy };
    retry.refuse_unknown(&["max_attempts", "backoff"], faults);
    policy.max_attempts = retry.number("max_attempts", 20, 1, faults);
    let Some(backoff) = retry.section("backoff", faults) else { return policy };
    backoff.refuse_unknown(&["first", "factor", "max", "jitter"], faults);
    let read = Backoff::new(
        backoff.duration("first", Duration::from_secs(1), faults),
        backoff.fraction("factor", 2.0, faults),
        backoff.duration("max", Duration::from_secs(600), faults),
        backoff.fraction("jitter", 0.2, faults),
    );
    match read {
        Ok(read) => policy.backoff = read,
        Err(fault) => faults.add(backoff.offset(), format!("`{}`: {fault}", retry.named("backoff"))),
    }
    policy
}

/// `OrderPlaced` → `order_placed`, `HTTPSent` → `http_sent`.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (n, c) in chars.iter().enumerate() {
        let after_lower = n > 0 && !chars[n - 1].is_uppercase() && chars[n - 1] != '_';
        let before_lower = n > 0 && chars[n - 1] != '_' && chars.get(n + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_lower || before_lower) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_snake_case() {
        for (name, table) in
            [("OrderPlaced", "order_placed"), ("HTTPSent", "http_sent"), ("plain", "plain"), ("Order_Placed", "order_placed")]
        {
            assert_eq!(snake_case(name), table);
        }
    }
}
