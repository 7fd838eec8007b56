//! The configuration file: parses and validates it, and reports every problem at once.
//!
//! Touches neither database nor plugins: whether tables and components fit is checked when they are
//! opened. Next: `reader`, which finds values and their places.

mod connections;
mod grants;
mod reader;

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::watcher::MAX_INTERVAL;
use connections::{Connection, connections};
use reader::{Faults, Section};
use signalbus_bus::ConnectionConfig;
use signalbus_core::backoff::Backoff;
use signalbus_core::settlement::Policy;
use signalbus_core::suggest;
use signalbus_outbox::Source;
use signalbus_plugin::{ConnectionGrant, Connections, Grants, Limits, PluginSpec};

/// A parsed `signalbus.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: Database,
    pub admin: Admin,
    /// Signal types, in the order of the file.
    pub signals: Vec<SignalConfig>,
}

/// The admin listener: health, metrics, and changes to a running relay.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// Address to listen on; without it, there is no listener.
    pub listen: Option<SocketAddr>,
    /// Required by every request that changes something.
    pub token: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Admin").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Where the outbox is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// May contain a password: never show it.
    pub url: String,
    pub max_connections: u32,
    /// Part of every signal's id; without it, the name that `migrate` gave the database.
    pub source: Option<String>,
    /// Where the side tables are, instead of the schema that the connection is in.
    pub side_schema: Option<String>,
    /// The longest interval between two looks for signals; `None`: the relay is woken, and does not look by itself.
    pub poll: Option<Duration>,
}

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

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

/// The most bytes in a batch, unless it is configured.
const BURST_BYTES: usize = 16 << 20;

const SIGNAL_KEYS: &[&str] = &[
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

impl Config {
    /// Reads a configuration file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// Every problem in the file, each with its line and column.
    pub fn read(path: &Path) -> Result<Self, Vec<String>> {
        match Self::examine(path).map_err(|fault| vec![fault])? {
            (config, faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(faults),
        }
    }

    /// Reads a configuration file as far as possible, and returns it with every problem found. Missing
    /// and invalid values are empty or have their defaults.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn examine(path: &Path) -> Result<(Self, Vec<String>), String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("{}: {error}; `signalbus init` creates a starter project, `--config` names another file", path.display())
        })?;
        Ok(Self::parse(path, &text))
    }

    fn parse(path: &Path, text: &str) -> (Self, Vec<String>) {
        let mut faults = Faults::new(path, text);
        let file = reader::parse(text, &mut faults);
        let root = Section::new("", 0, file.get_ref());
        root.refuse_unknown(&["database", "admin", "defaults", "signals", "connections", "http"], &mut faults);
        let folder = path.parent().unwrap_or(Path::new(""));
        let database = database(&root, folder, &mut faults);
        let connections = connections(&root, folder, &mut faults);
        let admin = admin(&root, &mut faults);
        let authorities = grants::authorities(&root, folder, &mut faults);
        let defaults = root.section("defaults", &mut faults);
        if let Some(defaults) = &defaults {
            defaults.refuse_unknown(SIGNAL_KEYS, &mut faults);
        }
        let mut signals = Vec::new();
        if let Some(section) = root.section("signals", &mut faults) {
            for (name, _) in section.entries() {
                if let Some(own) = section.section(&name, &mut faults) {
                    own.refuse_unknown(SIGNAL_KEYS, &mut faults);
                    let merged = own.or(defaults.as_ref());
                    let mut signal = signal(&name, &merged, folder, &connections, &mut faults);
                    signal.grants.ca.clone_from(&authorities);
                    signals.push(signal);
                }
            }
        }
        (Self { database, admin, signals }, faults.into_texts())
    }

    /// Returns the signal types called `names`, or all of them if there are no names, except the excluded
    /// ones.
    ///
    /// # Errors
    /// A name is not a signal type.
    pub fn chosen(&self, names: &[String], exclude: &[String]) -> Result<Vec<SignalConfig>, String> {
        let known = || self.signals.iter().map(SignalConfig::name);
        for name in names.iter().chain(exclude) {
            if known().all(|known| known != name) {
                let all: Vec<&str> = known().collect();
                let nearest = suggest::nearest(name, known());
                return Err(format!("unknown signal type \"{name}\"{nearest} (known: {})", all.join(", ")));
            }
        }
        let chosen = |signal: &&SignalConfig| {
            let name = signal.name().to_owned();
            (names.is_empty() || names.contains(&name)) && !exclude.contains(&name)
        };
        Ok(self.signals.iter().filter(chosen).cloned().collect())
    }
}

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

fn database(root: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Database {
    let mut database = Database { poll: Some(MAX_INTERVAL), ..Database::default() };
    let Some(section) = root.section("database", faults) else {
        faults.add(0, "`[database]` with a `url` is missing");
        return database;
    };
    section.refuse_unknown(&["url", "max_connections", "source", "side_schema", "poll"], faults);
    database.max_connections = section.number("max_connections", 8, 1, faults);
    database.source = section.string("source", faults);
    database.poll = match section.find("poll") {
        Some((_, toml::de::DeValue::String(text))) if text == "auto" => Some(MAX_INTERVAL),
        Some((_, toml::de::DeValue::String(text))) if text == "off" => None,
        _ => Some(section.duration("poll", MAX_INTERVAL, faults).max(Duration::from_millis(10))),
    };
    let plain = |name: &String| {
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        !name.is_empty() && name.len() <= 64 && name.chars().all(letter)
    };
    if database.source.as_ref().is_some_and(|name| !plain(name)) {
        faults.add(section.place("source"), "`database.source` must have 1 to 64 letters, digits, `-`, `.` or `_`");
    }
    database.side_schema = section.string("side_schema", faults);
    if database.side_schema.as_ref().is_some_and(|name| !plain(name) || name.contains('.')) {
        faults.add(section.place("side_schema"), "`database.side_schema` must have 1 to 64 letters, digits, `-` or `_`");
    }
    match section.url("url", faults) {
        Some(url) => database.url = beside(&url, folder),
        None if section.find("url").is_none() => faults.add(section.offset(), "`database.url` is missing"),
        None => {}
    }
    let scheme = database.url.split(':').next().unwrap_or_default();
    if scheme == "sqlite" && database.side_schema.is_some() {
        faults.add(section.place("side_schema"), "`database.side_schema` is set, and SQLite has no schemas; remove it");
    }
    if !database.url.is_empty() && !["sqlite", "postgres", "postgresql", "mysql", "mariadb"].contains(&scheme) {
        faults.add(section.place("url"), "`database.url` must begin with sqlite://, postgres:// or mysql://");
        database.url.clear();
    }
    database
}

fn admin(root: &Section<'_>, faults: &mut Faults<'_>) -> Admin {
    let Some(section) = root.section("admin", faults) else { return Admin::default() };
    section.refuse_unknown(&["listen", "token"], faults);
    let token = section.string("token", faults);
    if token.as_deref() == Some("") {
        faults.add(section.place("token"), "`admin.token` is empty; set a secret or remove the key");
    }
    let Some(text) = section.string("listen", faults) else { return Admin { listen: None, token } };
    let listen = text.parse::<SocketAddr>().ok();
    match listen {
        None => faults.add(
            section.place("listen"),
            format!("`admin.listen`: invalid address \"{text}\"; write an IP address and a port, as in \"127.0.0.1:9464\""),
        ),
        Some(address) if !address.ip().is_loopback() && token.is_none() => {
            faults.add(
                section.place("listen"),
                format!("`admin.listen`: {address} is not a loopback address, so `admin.token` is required"),
            );
        }
        Some(_) => {}
    }
    Admin { listen, token }
}

/// Resolves a relative SQLite path against the folder of the configuration file.
fn beside(url: &str, folder: &Path) -> String {
    match url.strip_prefix("sqlite://") {
        Some(file) if !file.starts_with(['/', ':']) && !folder.as_os_str().is_empty() => sqlite_url(folder, &format!("/{file}")),
        _ => url.to_owned(),
    }
}

/// Returns the URL of an SQLite file. `rest` is appended as it is, so it must already be valid in a URL.
pub fn sqlite_url(path: &Path, rest: &str) -> String {
    const SPECIAL: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');
    format!("sqlite://{}{rest}", percent_encode(path.as_os_str().as_bytes(), SPECIAL))
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

fn signal(name: &str, section: &Section<'_>, folder: &Path, connections: &[Connection], faults: &mut Faults<'_>) -> SignalConfig {
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

fn texts(section: &Section<'_>, key: &str, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    section.section(key, faults).map(|section| section.texts(faults)).unwrap_or_default()
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

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let (config, faults) = Config::parse(Path::new("dir/signalbus.toml"), text);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    #[test]
    fn a_short_file_has_sensible_defaults() {
        let config = parse("[database]\nurl='sqlite://outbox.db'\n[signals.OrderPlaced]\nplugin='a.wasm'\n").unwrap();
        assert_eq!(config.database.url, "sqlite://dir/outbox.db");
        let signal = &config.signals[0];
        assert_eq!(signal.source.table, "order_placed");
        assert_eq!(signal.plugin, Path::new("dir/a.wasm"));
        assert_eq!((signal.burst_count, signal.concurrency), (500, 4));
        assert_eq!(signal.policy.max_attempts, 20);
    }

    #[test]
    fn signals_inherit_the_defaults_key_by_key() {
        let config = parse(
            "[database]\nurl='postgres://h/d'\n[defaults]\nplugin='a.wasm'\nburst_count=7\n[defaults.settings]\nx=1\ny='b'\n\
             [signals.B]\n[signals.B.settings]\ny='c'\n[signals.A]\nburst_count=9\n",
        )
        .unwrap();
        let names: Vec<&str> = config.signals.iter().map(SignalConfig::name).collect();
        assert_eq!(names, ["B", "A"]);
        assert_eq!((config.signals[0].burst_count, config.signals[1].burst_count), (7, 9));
        let settings = [("y".to_owned(), "c".to_owned()), ("x".to_owned(), "1".to_owned())];
        assert_eq!(config.signals[0].grants.settings, settings);
    }

    #[test]
    fn every_problem_is_reported_with_its_place() {
        let faults = parse(
            "[database]\nurl='oracle://x'\n[signals.A]\nplugin='a.wasm'\nburst_cuont=1\ntimeout='soon'\nconcurrency=0\n\
             [signals.A.grants]\nconnections=['bus']\n[signals.B]\n[signals.B.retry.backoff]\nfirst='1h'\nmax='1s'\n",
        )
        .unwrap_err();
        let expected = [
            "dir/signalbus.toml:2:5: `database.url` must begin with sqlite://, postgres:// or mysql://",
            "dir/signalbus.toml:5:1: unknown key `signals.A.burst_cuont`; did you mean \"burst_count\"?",
            "dir/signalbus.toml:6:9: `signals.A.timeout`: invalid duration \"soon\"; write \"500ms\", \"30s\", \"10m\" or \"1h\"",
            "dir/signalbus.toml:7:13: `signals.A.concurrency` must be an integer of at least 1",
            "dir/signalbus.toml:9:14: `signals.A.grants.connections`: `[connections.bus]` is not defined",
        ];
        assert_eq!(&faults[..5], expected);
        assert_eq!(faults.len(), 7, "{faults:#?}");
    }

    #[test]
    fn side_tables_can_have_a_schema() {
        let of = |url: &str, name: &str| {
            parse(&format!("[database]\nurl='{url}'\nside_schema='{name}'\n[signals.A]\nplugin='a'\nburst_bytes='1KiB'\n"))
        };
        let config = of("postgres://h/d", "own-1").unwrap();
        assert_eq!(config.database.side_schema.as_deref(), Some("own-1"));
        assert_eq!(config.signals[0].source.burst_bytes, Some(1024));
        assert!(of("sqlite://a.db", "own").unwrap_err()[0].ends_with("SQLite has no schemas; remove it"));
        assert!(of("mysql://h/d", "a.b").unwrap_err()[0].ends_with("must have 1 to 64 letters, digits, `-` or `_`"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let config =
            parse("[database]\nurl='mysql://u:topsecret@h/d'\n[signals.A]\nplugin='a'\n[signals.A.secrets]\nkey='topsecret'\n")
                .unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
    }

    #[test]
    fn table_names_are_snake_case() {
        for (name, table) in
            [("OrderPlaced", "order_placed"), ("HTTPSent", "http_sent"), ("plain", "plain"), ("Order_Placed", "order_placed")]
        {
            assert_eq!(snake_case(name), table);
        }
    }
}
