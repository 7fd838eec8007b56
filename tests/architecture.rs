//! The borders between crates, as their manifests draw them. The compiler holds what follows from them.

use std::collections::BTreeMap;
use std::path::Path;

/// The crates that a manifest names under `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(manifest).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names =
        lines.filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty() && !name.starts_with('#'));
    names.map(str::to_owned).collect()
}

fn host() -> BTreeMap<&'static str, Vec<String>> {
    let crates = ["authoring", "bus", "core", "outbox", "plugin", "relay", "shares", "telemetry"];
    let mut host: BTreeMap<_, _> = crates.into_iter().map(|name| (name, dependencies(&format!("host/{name}")))).collect();
    host.insert("command", dependencies("host"));
    assert!(host.values().all(|names| !names.is_empty()), "{host:?}");
    host
}

#[test]
fn large_dependencies_have_one_home() {
    for (dependency, homes) in [
        // An inbox is a table of another service, not of the outbox.
        ("sqlx", &["bus", "outbox"][..]),
        ("wasmtime", &["plugin"]),
        ("wasmtime-wasi", &["plugin"]),
        ("wasmtime-wasi-http", &["plugin"]),
        // Tokens for Kafka come from HTTP servers.
        ("reqwest", &["bus", "plugin"]),
        ("wit-component", &["authoring"]),
        ("axum", &["relay"]),
        ("metrics-exporter-prometheus", &["relay"]),
        ("metrics", &["relay", "telemetry"]),
        ("clap", &["command"]),
        ("lapin", &["bus"]),
        ("async-nats", &["bus"]),
        ("redis", &["bus"]),
        ("rumqttc", &["bus"]),
        ("rdkafka", &["bus"]),
    ] {
        let host = host();
        let found: Vec<&str> =
            host.iter().filter(|(_, names)| names.iter().any(|name| name == dependency)).map(|(home, _)| *home).collect();
        assert_eq!(found, homes, "{dependency}");
    }
}

#[test]
fn outbox_plugin_and_bus_do_not_know_each_other() {
    let host = host();
    for part in ["outbox", "plugin", "bus"] {
        let ours: Vec<&str> = host[part].iter().filter_map(|name| name.strip_prefix("signalbus-")).collect();
        assert!(ours.iter().all(|name| ["core", "shares", "telemetry"].contains(name)), "{part} knows {ours:?}");
    }
}

#[test]
fn the_core_needs_next_to_nothing_and_never_waits() {
    assert_eq!(dependencies("host/core"), ["bytesize", "fundu", "strsim"]);
    for file in ["signal", "settlement", "backoff", "key", "message"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("core/src/{file}.rs"));
        let text = std::fs::read_to_string(path).unwrap();
        let foreign = text
            .lines()
            .filter(|line| line.starts_with("use ") && !line.starts_with("use std::") && !line.starts_with("use crate::"));
        assert_eq!(foreign.count(), 0, "{file} needs more than the standard library");
        assert!(!text.contains("async ") && !text.contains(".await"), "{file} waits");
    }
}

#[test]
fn guests_do_not_depend_on_the_host() {
    for manifest in ["guest-sdk", "plugins/log", "plugins/publish", "plugins/rust", "plugins/starter", "plugins/webhook"] {
        let ours: Vec<String> = dependencies(manifest).into_iter().filter(|name| name.starts_with("signalbus")).collect();
        assert!(ours.iter().all(|name| name == "signalbus-guest"), "{manifest} knows {ours:?}");
    }
}
