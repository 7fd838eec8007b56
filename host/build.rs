//! Bundles the ready-made plugins for `signalbus init`, as far as they have been built. It builds none
//! itself.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("bundled.rs"), bundled(&root.join("target/plugins"))).expect("the build folder is writable");
}

fn bundled(folder: &Path) -> String {
    let mut bundled = String::from("pub(super) const BUNDLED: &[(&str, &[u8])] = &[\n");
    for name in ["log", "starter"] {
        let file = folder.join(format!("{name}.wasm"));
        println!("cargo:rerun-if-changed={}", file.display());
        if file.exists() {
            bundled += &format!("    ({name:?}, include_bytes!({:?})),\n", file.display());
        }
    }
    bundled + "];\n"
}
