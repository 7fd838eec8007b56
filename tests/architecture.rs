//! Checks the source against the invariants of `docs/src/architecture.md`.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the files under a folder, such as `outbox/claim.rs`, with their code but without comments and unit tests.
fn code(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(!files.is_empty(), "{folder} has no source");
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        (path.strip_prefix(&root).unwrap().display().to_string(), lines.collect::<Vec<_>>().join("\n"))
    };
    files.iter().map(read).collect()
}

/// Returns whether code refers to a crate or module, as in `sqlx::…`.
fn names(code: &str, module: &str) -> bool {
    code.contains(&format!("{module}::"))
}

fn only_in(module: &str, places: &[&str]) {
    for (file, code) in code("host/src") {
        let allowed = places.iter().any(|place| file.starts_with(place));
        assert!(allowed || !names(&code, module), "{file} names {module}");
    }
}

#[test]
fn large_dependencies_stay_in_their_crates() {
    // An inbox is a table of another service, not of the outbox.
    only_in("sqlx", &["outbox", "bus/inbox.rs"]);
    only_in("wasmtime", &["plugin"]);
    only_in("wasmtime_wasi", &["plugin"]);
    only_in("wasmtime_wasi_http", &["plugin"]);
    only_in("reqwest", &["plugin"]);
    only_in("clap", &["cli.rs"]);
    only_in("axum", &["admin"]);
    for client in ["lapin", "async_nats", "redis", "rumqttc", "rdkafka"] {
        only_in(client, &["bus"]);
    }
}

#[test]
fn outbox_plugin_and_bus_are_independent() {
    let strangers = ["outbox", "plugin", "bus"];
    for (file, code) in code("host/src") {
        let Some(own) = strangers.iter().find(|part| file.starts_with(*part)) else { continue };
        for other in strangers.iter().filter(|part| *part != own) {
            assert!(!names(&code, &format!("crate::{other}")), "{file} knows {other}");
        }
    }
}

#[test]
fn the_core_depends_on_nothing() {
    for (file, code) in code("host/src") {
        if ["signal.rs", "settlement.rs", "backoff.rs"].contains(&file.as_str()) {
            for line in code.lines().filter(|line| line.starts_with("use ")) {
                let known = ["use std::", "use crate::signal", "use crate::backoff"];
                assert!(known.iter().any(|known| line.starts_with(known)), "{file}: {line}");
            }
            assert!(!code.contains("async ") && !code.contains(".await"), "{file} waits");
        }
    }
}

#[test]
fn guests_do_not_depend_on_the_host() {
    for manifest in ["guest-sdk", "plugins/log", "plugins/rust", "plugins/starter", "plugins/webhook"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(manifest).join("Cargo.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.lines().all(|line| !line.starts_with("signalbus ") && !line.starts_with("signalbus.")), "{manifest}");
    }
}

#[test]
fn only_tests_unwrap() {
    for folder in ["host/src", "guest-sdk/src", "plugins/rust/src", "plugins/webhook/src"] {
        for (file, code) in code(folder) {
            let in_test = file.contains("test");
            assert!(in_test || !code.contains(".unwrap()"), "{folder}/{file} unwraps");
        }
    }
}
