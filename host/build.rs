//! Bundles the ready-made plugins that have been built, for `signalbus init`.

use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let folder = Path::new(&root).join("../target/plugins");
    let mut bundled = String::from("pub(super) const BUNDLED: &[(&str, &[u8])] = &[\n");
    for name in ["log", "starter"] {
        let file = folder.join(format!("{name}.wasm"));
        println!("cargo:rerun-if-changed={}", file.display());
        if file.exists() {
            bundled += &format!("    ({name:?}, include_bytes!({:?})),\n", file.display());
        }
    }
    bundled += "];\n";
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("bundled.rs"), bundled).expect("the build folder can be written");
}
