//! Plugins in the text format of WebAssembly, for what no compiler writes.

use std::path::{Path, PathBuf};

/// A memory, an allocator that never frees, and what answers that every signal was sent.
const COMMON: &str = r#"
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 1024))
  (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (i32.shr_u (global.get $free) (i32.const 16)) (i32.sub (memory.size) (i32.const 1)))
      (then (drop (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 2))))))
    (local.get $at))
  (func $sent (param $signals i32) (result i32)
    (local $answer i32)
    ;; Outcomes of 32 bytes each, all zero: sent.
    (local.set $answer (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
    (i32.store offset=8 (local.get $answer)
      (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $signals) (i32.const 32))))
    (i32.store offset=12 (local.get $answer) (local.get $signals))
    (local.get $answer))
"#;

/// A core module whose function for a batch has this body; `signals` is the number of signals, and `more` are further
/// fields of the module. Imports come first.
pub fn module(imports: &str, more: &str, body: &str) -> Vec<u8> {
    let text = format!(
        "(module {imports} {COMMON} {more}
          (func $\"send\" (export \"signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages\")
            (param i32 i32 i32 i32 i32 i32 i32) (param $signals i32) (result i32) {body}))"
    );
    wat::parse_str(text).unwrap()
}

/// Adds a custom section to a core module.
pub fn with_section(mut module: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut section = Vec::new();
    leb(&mut section, name.len());
    section.extend(name.as_bytes());
    section.extend(data);
    module.push(0);
    leb(&mut module, section.len());
    module.extend(section);
    module
}

/// Appends a number as WebAssembly writes it.
pub fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 127 {
        bytes.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Makes a component of a core module.
pub fn component(module: Vec<u8>) -> Vec<u8> {
    component_in("package test:plugin; world plugin { include signalbus:plugin/bulk-sender-plugin@0.1.1; }", "plugin", module)
}

/// The same, in a world that this text defines.
pub fn component_in(text: &str, world: &str, mut module: Vec<u8>) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    let package = resolve.push_str("world.wit", text).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    wit_component::ComponentEncoder::default().validate(false).module(&module).unwrap().encode().unwrap()
}

/// Writes a component of a core module into a folder.
pub fn write(folder: &Path, name: &str, module: Vec<u8>) -> PathBuf {
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, component(module)).unwrap();
    path
}
