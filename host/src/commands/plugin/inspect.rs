//! `plugin inspect` and `plugin check`: show the metadata of a plugin, and what it needs to run.
//!
//! Neither gives the plugin a signal. What is read is in `signalbus_authoring::component`, what it needs
//! in `signalbus_plugin`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{Exit, Failure, Output, print, print_json};
use super::{engine, size};
use signalbus_authoring::component::{self, Description};
use signalbus_plugin::{CallLog, Connections, Grants, LoadError, Need, Plugin, PluginSpec, need};

/// Prints name, version, producers, WIT and digest.
pub(crate) fn inspect(path: &Path, output: Output) -> Result<Exit, Failure> {
    let bytes = read(path)?;
    let Description { name, version, producers, exports, imports, wit } = describe(path, &bytes)?;
    let digest = signalbus_plugin::digest(&bytes);
    if output == Output::Json {
        let producers: Vec<Value> =
            producers.iter().map(|(field, name, version)| json!({ "field": field, "name": name, "version": version })).collect();
        print_json(json!({
            "file": path, "digest": digest, "bytes": bytes.len(), "name": name, "version": version,
            "producers": producers, "exports": exports, "imports": imports, "wit": wit,
        }));
        return Ok(Exit::Done);
    }
    let unknown = || "unknown".to_owned();
    print(format_args!("file         {}", path.display()));
    print(format_args!("digest       {digest}"));
    print(format_args!("size         {}", size(bytes.len())));
    print(format_args!("name         {}", name.unwrap_or_else(unknown)));
    print(format_args!("version      {}", version.unwrap_or_else(unknown)));
    for (field, name, version) in &producers {
        print(format_args!("{field:<12} {name} {version}"));
    }
    print("");
    wit.trim_end().lines().for_each(print);
    Ok(Exit::Done)
}

/// Prints what a plugin needs to run, and fails if it does not load.
pub(crate) async fn check(path: &Path, output: Output) -> Result<Exit, Failure> {
    let bytes = read(path)?;
    let Description { exports, imports, .. } = describe(path, &bytes)?;
    let interpreted = signalbus_plugin::is_interpreted(&bytes);
    let needs: Vec<(&str, Need)> = imports.iter().map(|import| (import.as_str(), needed(import, interpreted))).collect();
    let contract = exports.iter().filter(|export| export.starts_with("signalbus:plugin/")).cloned().collect::<Vec<_>>();
    let loaded = try_load(path).await;
    let fault = loaded.as_ref().err().map(ToString::to_string);
    let (time, memory) = loaded.unwrap_or_default();
    if output == Output::Json {
        let imports: Vec<Value> = needs.iter().map(|(import, need)| json!({ "import": import, "needs": words(*need) })).collect();
        print_json(json!({
            "file": path, "contract": contract, "imports": imports, "bytes": bytes.len(), "memory": memory,
            "load_milliseconds": time.as_secs_f64() * 1000.0, "fault": fault,
        }));
    } else {
        print(format_args!("contract   {}", if contract.is_empty() { "none".to_owned() } else { contract.join(", ") }));
        print(format_args!("size       {}", size(bytes.len())));
        if fault.is_none() {
            print(format_args!("memory     {} at start", size(memory)));
            print(format_args!("loads in   {time:.1?} on this machine; compiled code is cached"));
        }
        print("imports");
        needs.iter().for_each(|(import, need)| print(format_args!("  {import:<45} {}", words(*need))));
        let grants = grants(&needs);
        print(if grants.is_empty() { "grants     none needed".to_owned() } else { format!("grants     {}", grants.join(", ")) });
    }
    match fault {
        None => Ok(Exit::Done),
        Some(fault) => Err(Failure::new(Exit::Failed, fault)),
    }
}

/// The need of an import. An interpreter imports sockets for its standard library, whether or not
/// the plugin uses them: the relay refuses them only when they are used.
fn needed(import: &str, interpreted: bool) -> Need {
    match need(import) {
        Need::Grant(_) if interpreted && import.starts_with("wasi:sockets/") => Need::Nothing,
        need => need,
    }
}

fn words(need: Need) -> &'static str {
    match need {
        Need::Nothing => "free",
        Need::Grant(key) => key,
        Need::Refused => "not offered by this relay",
    }
}

fn grants(needs: &[(&str, Need)]) -> Vec<&'static str> {
    let mut grants = Vec::new();
    for (import, need) in needs {
        let grant = match need {
            Need::Grant(key) => *key,
            _ if import.starts_with("signalbus:plugin/producer@") || import.starts_with("signalbus:plugin/ordered-producer@") => {
                "grants.connections"
            }
            _ => continue,
        };
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    grants
}

/// Loads the plugin as if everything were granted; returns how long that took, and the memory it
/// started with.
async fn try_load(path: &Path) -> Result<(Duration, usize), LoadError> {
    // RFC 6761: these names never resolve.
    let grants = Grants {
        http: "https://plugin.invalid".parse().into_iter().collect(),
        tcp: "plugin.invalid:1".parse().into_iter().collect(),
        ..Grants::default()
    };
    let call_log = Arc::new(CallLog::default());
    let connections = Connections::default();
    let spec = PluginSpec {
        signal_type: "none".to_owned(),
        path: path.to_owned(),
        grants,
        connections,
        call_log: Some(call_log.clone()),
        ..PluginSpec::default()
    };
    let engine =
        engine().map_err(|_| LoadError::Start { path: path.to_owned(), reason: "the engine cannot start".to_owned() })?;
    let begun = Instant::now();
    Plugin::load(&engine, &spec).await?;
    let time = begun.elapsed();
    let (_, calls) = call_log.take();
    Ok((time, calls.iter().map(|call| call.memory).max().unwrap_or(0)))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::new(Exit::Failed, format!("\"{}\" cannot be read: {error}", path.display())))
}

fn describe(path: &Path, bytes: &[u8]) -> Result<Description, Failure> {
    let place = path.display();
    let fault = match component::kind(bytes) {
        Ok(component::Kind::Component) => match component::describe(bytes) {
            Ok(description) => return Ok(description),
            Err(error) => format!("\"{place}\": {error:#}"),
        },
        Ok(component::Kind::CoreModule) => {
            format!("\"{place}\" is a core module, not a component; run `signalbus plugin build` in its project")
        }
        Err(error) => format!("\"{place}\": {error:#}"),
    };
    Err(Failure::new(Exit::Failed, fault))
}
