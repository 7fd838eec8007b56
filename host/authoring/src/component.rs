//! Component files: reads and writes their metadata, and turns core modules into components.
//!
//! Nothing here runs a plugin. Next: the commands `plugin build` and `plugin inspect`, which call it.

use std::path::Path;

use anyhow::{Context as _, bail};
use wasi_preview1_component_adapter_provider::{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER};
use wasm_metadata::{AddMetadata, AddMetadataField, Producers};
use wasmparser::{Encoding, KnownCustom, Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm, OutputToString, StringEncoding, WitPrinter, embed_component_metadata};
use wit_parser::{Resolve, WorldKey};

/// The contract that plugins are built against.
pub const WIT: &str = include_str!("../../../wit/signalbus.wit");

/// The metadata of a component.
#[derive(Clone, Debug, Default)]
pub struct Description {
    pub name: Option<String>,
    pub version: Option<String>,
    /// The tools that made it: `processed-by`, `wit-component`, `0.254.2`.
    pub producers: Vec<(String, String, String)>,
    pub exports: Vec<String>,
    pub imports: Vec<String>,
    /// Its world, as WIT.
    pub wit: String,
}

/// Whether a file is a component, or a core module that can be turned into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Component,
    CoreModule,
}

/// Tells whether the bytes are a component or a core module.
///
/// # Errors
/// If they are neither.
pub fn kind(bytes: &[u8]) -> anyhow::Result<Kind> {
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => Ok(Kind::Component),
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Ok(Kind::CoreModule),
        _ => bail!("not a WebAssembly file"),
    }
}

/// Turns a core module into a component. If the module does not name its world, the exports tell,
/// and the world comes from the folder `wit` or, without one, from this relay's contract.
///
/// # Errors
/// If the module exports no sender, or does not match its world.
pub fn encode(core: &[u8], wit: &Path) -> anyhow::Result<Vec<u8>> {
    let mut core = core.to_vec();
    if !says_its_world(&core)? {
        let mut resolve = Resolve::default();
        let package = if wit.exists() { resolve.push_path(wit)?.0 } else { resolve.push_str("signalbus.wit", WIT)? };
        let world = resolve.select_world(&[package], Some(world(&core)?)).context("world not found in the WIT package")?;
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)?;
    }
    let encoder = ComponentEncoder::default().validate(true).module(&core)?;
    encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?.encode()
}

/// Writes name, version and this tool's own name into the metadata of a component.
///
/// # Errors
/// If the bytes are not a component.
pub fn label(component: &[u8], name: &str, version: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut label = AddMetadata::default();
    label.name = AddMetadataField::Set(name.to_owned());
    label.processed_by = vec![(TOOL.to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    if let Some(version) = version {
        label.version = AddMetadataField::Set(wasm_metadata::Version::new(version.to_owned()));
    }
    label.to_wasm(component)
}

/// Whether [`label`] has been applied to a component.
pub fn is_labelled(component: &[u8]) -> bool {
    Producers::from_wasm(component).is_ok_and(|made| made.and_then(|made| made.get("processed-by")?.get(TOOL).cloned()).is_some())
}

/// The name of this tool among the producers of a component.
const TOOL: &str = "signalbus";

fn says_its_world(core: &[u8]) -> anyhow::Result<bool> {
    for payload in Parser::new(0).parse_all(core) {
        if let Payload::CustomSection(section) = payload?
            && section.name().starts_with("component-type")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the smallest world that has everything that a module exports.
fn world(core: &[u8]) -> anyhow::Result<&'static str> {
    const WORLDS: [(&str, &str); 3] = [
        ("signalbus:plugin/ordered-sender", "ordered-sender-plugin"),
        ("signalbus:plugin/bulk-sender", "bulk-sender-plugin"),
        ("signalbus:plugin/sender", "sender-plugin"),
    ];
    let mut exported = Vec::new();
    for payload in Parser::new(0).parse_all(core) {
        if let Payload::ExportSection(exports) = payload? {
            exported.extend(exports.into_iter().collect::<Result<Vec<_>, _>>()?);
        }
    }
    let exports = |wanted: &str| {
        exported.iter().any(|export| export.name.split_once('@').is_some_and(|(interface, _)| interface == wanted))
    };
    let world = WORLDS.into_iter().find(|(interface, _)| exports(interface)).map(|(_, world)| world);
    world.context("exports none of \"signalbus:plugin/sender\", \"bulk-sender\" and \"ordered-sender\"")
}

/// Reads the metadata of a component.
///
/// # Errors
/// If the bytes are not a component.
pub fn describe(bytes: &[u8]) -> anyhow::Result<Description> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(bytes)? else { bail!("a WIT package, not a component") };
    let names = |keys: Vec<&WorldKey>| keys.into_iter().map(|key| resolve.name_world_key(key)).collect();
    let mut printer = WitPrinter::<OutputToString>::default();
    let package = resolve.worlds[world].package.context("the world has no package")?;
    printer.print(&resolve, package, &[])?;
    let (name, version) = labels(bytes)?;
    let mut producers = Vec::new();
    for (field, values) in made_by(bytes)?.iter() {
        producers.extend(values.iter().map(|(name, version)| (field.clone(), name.clone(), version.clone())));
    }
    Ok(Description {
        name,
        version,
        producers,
        exports: names(resolve.worlds[world].exports.keys().collect()),
        imports: names(resolve.worlds[world].imports.keys().collect()),
        wit: printer.output.to_string(),
    })
}

/// The tools that made the component and the modules in it.
fn made_by(bytes: &[u8]) -> anyhow::Result<Producers> {
    let mut all = Producers::empty();
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::CustomSection(section) = payload?
            && section.name() == "producers"
        {
            all.merge(&Producers::from_bytes(section.data(), section.data_offset())?);
        }
    }
    Ok(all)
}

/// The name and version of the outermost component.
fn labels(bytes: &[u8]) -> anyhow::Result<(Option<String>, Option<String>)> {
    let (mut name, mut version, mut depth) = (None, None, 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 0 => match section.as_known() {
                KnownCustom::ComponentName(names) => {
                    for part in names {
                        if let wasmparser::ComponentName::Component { name: own, .. } = part? {
                            name = Some(own.to_owned());
                        }
                    }
                }
                _ if section.name() == "version" => version = Some(String::from_utf8_lossy(section.data()).into_owned()),
                _ => {}
            },
            _ => {}
        }
    }
    Ok((name, version))
}
