//! The section `[database]`: where the outbox is.
//!
//! Connects to nothing. Next: `signalbus-outbox`, which opens it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::reader::{Faults, Section};
use crate::watcher::MAX_INTERVAL;

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

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

pub(super) fn database(root: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Database {
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
