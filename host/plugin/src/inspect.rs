//! Checks a plugin's imports and exports, by name alone.
//!
//! An import must never be served without its grant. `load` turns the results into errors; `engine`
//! links what is allowed here.

use wasmparser::{KnownCustom, Parser, Payload};

use super::grants::Grants;

/// Packages, and the version prefixes of them that this relay supports.
const TRACKS: [(&str, &str); 2] = [("signalbus:plugin/", "0.1."), ("wasi:", "0.2.")];

/// Interfaces that every plugin may import.
const OPEN: [&str; 25] = [
    "signalbus:plugin/types",
    "signalbus:plugin/log",
    "signalbus:plugin/config",
    "signalbus:plugin/producer",
    "signalbus:plugin/ordered-producer",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
];

/// Interfaces that need the grant `http`.
const HTTP: [&str; 2] = ["wasi:http/types", "wasi:http/outgoing-handler"];

/// Interfaces that need the grant `tcp`. Standard libraries import UDP with it, which never works.
const TCP: [&str; 7] = [
    "wasi:sockets/network",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// A sender interface that a plugin exports, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Export {
    Bulk,
    Single,
    Runs,
}

/// The sender interfaces that a plugin exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exports {
    /// For signal types without order; `Runs` if there is nothing else.
    pub(super) plain: Export,
    /// Whether ordered types are sent in runs.
    pub(super) runs: bool,
}

/// Why no sender interface can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoExport {
    /// This export has a version that the relay does not support.
    Version(String),
    Missing,
}

/// The imports that cannot be served.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Imports that need a grant, and the key of the grant.
    pub(super) ungranted: Vec<(String, &'static str)>,
    pub(super) unknown: Vec<String>,
}

/// The condition under which an import is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// The key of a grant.
    Grant(&'static str),
    /// Never served.
    Refused,
}

const GRANT_HTTP: &str = "grants.http";
pub(super) const GRANT_TCP: &str = "grants.tcp";

/// Selects the sender interfaces: of those for signal types without order, bulk before single.
pub(super) fn exports<'a>(names: impl Iterator<Item = &'a str>) -> Result<Exports, NoExport> {
    let (mut found, mut other) = (Vec::new(), None);
    for name in names {
        let (interface, version) = split(name);
        let spoken = is_spoken(interface, version);
        match interface {
            "signalbus:plugin/ordered-sender" if spoken => found.push(Export::Runs),
            "signalbus:plugin/bulk-sender" if spoken => found.push(Export::Bulk),
            "signalbus:plugin/sender" if spoken => found.push(Export::Single),
            _ if interface.starts_with("signalbus:plugin/") && !spoken => other = Some(name),
            _ => {}
        }
    }
    match (found.iter().min(), other) {
        (Some(&plain), _) => Ok(Exports { plain, runs: found.contains(&Export::Runs) }),
        (None, Some(name)) => Err(NoExport::Version(name.to_owned())),
        (None, None) => Err(NoExport::Missing),
    }
}

/// Returns the imports that cannot be served with these grants.
pub(super) fn refused<'a>(names: impl Iterator<Item = &'a str>, grants: &Grants) -> Refused {
    let mut refused = Refused::default();
    for name in names {
        match need(name) {
            Need::Nothing => {}
            Need::Grant(GRANT_HTTP) if !grants.http.is_empty() => {}
            Need::Grant(GRANT_TCP) if !grants.tcp.is_empty() => {}
            Need::Grant(key) => refused.ungranted.push((name.to_owned(), key)),
            Need::Refused => refused.unknown.push(name.to_owned()),
        }
    }
    refused
}

/// Returns the condition under which an import, such as `wasi:http/types@0.2.0`, is served.
pub fn need(import: &str) -> Need {
    let (interface, version) = split(import);
    match interface {
        _ if !is_spoken(interface, version) => Need::Refused,
        _ if HTTP.contains(&interface) => Need::Grant(GRANT_HTTP),
        _ if TCP.contains(&interface) => Need::Grant(GRANT_TCP),
        _ if OPEN.contains(&interface) => Need::Nothing,
        _ => Need::Refused,
    }
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// Returns whether this relay supports a version of an interface. Versions of one track are
/// interchangeable; a pre-release is compatible with nothing.
fn is_spoken(interface: &str, version: &str) -> bool {
    TRACKS.iter().any(|(package, track)| interface.starts_with(package) && version.starts_with(track) && !version.contains('-'))
}

/// Returns whether a component contains an interpreter with its whole standard library, which imports
/// more than the plugin itself may ever use.
pub fn is_interpreted(bytes: &[u8]) -> bool {
    // Components with an interpreter are built from a snapshot of the initialised interpreter.
    const TOOL: &str = "component-init-transform";
    let made_by = |payload: Payload<'_>| {
        let Payload::CustomSection(section) = payload else { return false };
        let KnownCustom::Producers(fields) = section.as_known() else { return false };
        fields.into_iter().flatten().any(|field| field.values.into_iter().flatten().any(|value| value.name == TOOL))
    };
    Parser::new(0).parse_all(bytes).map_while(Result::ok).any(made_by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(names: &[&str]) -> Result<Export, NoExport> {
        exports(names.iter().copied()).map(|exports| exports.plain)
    }

    #[test]
    fn runs_are_for_ordered_types_unless_there_is_nothing_else() {
        let (bulk, runs) = ("signalbus:plugin/bulk-sender@0.1.1", "signalbus:plugin/ordered-sender@0.1.1");
        assert_eq!(exports([runs, bulk].into_iter()), Ok(Exports { plain: Export::Bulk, runs: true }));
        assert_eq!(exports([bulk].into_iter()), Ok(Exports { plain: Export::Bulk, runs: false }));
        assert_eq!(exports([runs].into_iter()), Ok(Exports { plain: Export::Runs, runs: true }));
    }

    #[test]
    fn bulk_comes_before_single_in_any_patch_version() {
        let (single, bulk) = ("signalbus:plugin/sender@0.1.0", "signalbus:plugin/bulk-sender@0.1.9");
        assert_eq!(picked(&[single]), Ok(Export::Single));
        assert_eq!(picked(&[single, bulk]), Ok(Export::Bulk));
        assert_eq!(picked(&[bulk, "wasi:cli/run@0.2.0"]), Ok(Export::Bulk));
    }

    #[test]
    fn an_unsupported_version_is_named() {
        for name in [
            "signalbus:plugin/sender@0.2.0",
            "signalbus:plugin/bulk-sender@1.0.0",
            "signalbus:plugin/sender@0.1.0-rc1",
            "signalbus:plugin/sender",
        ] {
            assert_eq!(picked(&[name]), Err(NoExport::Version(name.into())));
        }
        assert_eq!(picked(&["wasi:cli/run@0.2.0"]), Err(NoExport::Missing));
        assert_eq!(picked(&[]), Err(NoExport::Missing));
    }

    #[test]
    fn a_supported_export_beside_a_newer_one_is_used() {
        let names = ["signalbus:plugin/bulk-sender@0.2.0", "signalbus:plugin/sender@0.1.0"];
        assert_eq!(picked(&names), Ok(Export::Single));
    }

    #[test]
    fn all_refused_imports_are_reported_at_once() {
        let names = [
            "wasi:http/types@0.2.4",
            "wasi:sockets/tcp@0.2.0",
            "wasi:io/streams@0.2.6",
            "wasi:keyvalue/store@0.2.0",
            "wasi:cli/stdout@0.3.0",
            "signalbus:plugin/log@0.1.3",
        ];
        let bare = refused(names.into_iter(), &Grants::default());
        assert_eq!(
            bare.ungranted,
            [("wasi:http/types@0.2.4".to_owned(), "grants.http"), ("wasi:sockets/tcp@0.2.0".to_owned(), "grants.tcp"),]
        );
        assert_eq!(bare.unknown, ["wasi:keyvalue/store@0.2.0", "wasi:cli/stdout@0.3.0"]);
        let grants = Grants { http: vec!["https://shop.example".parse().unwrap()], ..Grants::default() };
        let granted = refused(names.into_iter(), &grants);
        assert_eq!(granted.ungranted, [("wasi:sockets/tcp@0.2.0".to_owned(), "grants.tcp")]);
        let grants = Grants { tcp: vec!["smtp.example:25".parse().unwrap()], ..grants };
        assert_eq!(refused(names.into_iter(), &grants).ungranted, []);
    }

    #[test]
    fn unsupported_imports_are_unknown_whatever_is_granted() {
        let grants = Grants {
            http: vec!["https://shop.example".parse().unwrap()],
            tcp: vec!["smtp.example:25".parse().unwrap()],
            ..Grants::default()
        };
        let names = ["wasi:http/incoming-handler@0.2.0", "wasi:http/types@0.3.0", "wasi:sockets/types@0.2.0"];
        assert_eq!(refused(names.into_iter(), &grants).unknown, names);
    }
}
