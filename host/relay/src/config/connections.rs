//! The connections to buses that may be granted to plugins.
//!
//! Reads and checks them, and opens none: `signalbus-bus` connects on first use. Next: `grants`, which
//! names them.

use std::path::Path;
use std::time::Duration;

use super::reader::{Faults, Section};
use super::texts;
use signalbus_bus::ConnectionConfig;

/// A connection in the file; `config` is `None` if it is invalid.
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) config: Option<ConnectionConfig>,
}

pub(super) fn connections(root: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Vec<Connection> {
    let Some(section) = root.section("connections", faults) else { return Vec::new() };
    let names = section.entries().into_iter().map(|(name, _)| name);
    let read = |name: String| {
        let config = section.section(&name, faults).and_then(|own| connection(&name, &own, folder, faults));
        Connection { name, config }
    };
    names.map(read).collect()
}

fn connection(name: &str, section: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Option<ConnectionConfig> {
    section.refuse_unknown(&["url", "ca", "timeout", "options"], faults);
    if section.find("url").is_none() {
        faults.add(section.offset(), format!("`{}` is missing", section.named("url")));
    }
    let ca = section.string("ca", faults).and_then(|file| {
        let file = folder.join(file);
        let text = std::fs::read_to_string(&file);
        text.map_err(|error| faults.add(section.place("ca"), format!("`{}`: {}: {error}", section.named("ca"), file.display())))
            .ok()
    });
    let timeout = section.duration("timeout", Duration::from_secs(10), faults);
    let options = texts(section, "options", faults);
    let url = section.url("url", faults)?;
    let config = ConnectionConfig::new(name, &url, ca, timeout, options, folder);
    config.map_err(|fault| faults.add(section.place("url"), format!("`{}`: {fault}", section.named("url")))).ok()
}
