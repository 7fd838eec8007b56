//! What a plugin may read and reach.

use std::path::Path;
use std::sync::Arc;

use super::connections::Connection;
use super::reader::{Faults, Section};
use super::texts;
use crate::plugin::{Grants, check_authorities};
use crate::suggest;

pub(super) fn grants(section: &Section<'_>, connections: &[Connection], faults: &mut Faults<'_>) -> Grants {
    let own = Grants { settings: settings(section, faults), secrets: texts(section, "secrets", faults), ..Grants::default() };
    let Some(grants) = section.section("grants", faults) else { return own };
    grants.refuse_unknown(&["connections", "http", "tcp", "networks"], faults);
    let granted = Grants {
        connections: grants.strings("connections", faults),
        http: grants.parsed("http", faults),
        tcp: grants.parsed("tcp", faults),
        networks: grants.parsed("networks", faults),
        ..own
    };
    for name in granted.connections.iter().filter(|name| connections.iter().all(|known| known.name != **name)) {
        let nearest = suggest::nearest(name, connections.iter().map(|known| known.name.as_str()));
        faults.add(
            grants.place("connections"),
            format!("`{}`: there is no `[connections.{name}]`{nearest}", grants.named("connections")),
        );
    }
    granted
}

fn settings(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    section.section("settings", faults).map(|section| section.documents(faults)).unwrap_or_default()
}

/// The certificates of private authorities, in PEM form.
pub(super) fn authorities(root: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Option<Arc<str>> {
    let section = root.section("http", faults)?;
    section.refuse_unknown(&["ca"], faults);
    let file = folder.join(section.string("ca", faults)?);
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
    match text.and_then(|text| check_authorities(&text).map(|()| text)) {
        Ok(text) => Some(text.into()),
        Err(fault) => {
            faults.add(section.place("ca"), format!("`http.ca`: {}: {fault}", file.display()));
            None
        }
    }
}
