//! Bundles the ready-made plugins that have been built, for `signalbus init`, and the samples in
//! every language, for `signalbus plugin new`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const LANGUAGES: [&str; 8] = ["rust", "c", "cpp", "zig", "go", "python", "javascript", "typescript"];

/// What tools leave in a project.
const LEFT_BEHIND: [&str; 16] = [
    "target",
    "node_modules",
    ".venv",
    "__pycache__",
    ".zig-cache",
    "zig-out",
    "build",
    "dist",
    "componentize_py_async_support",
    "wit_world",
    "poll_loop.py",
    "componentize_py_runtime.pyi",
    "componentize_py_types.py",
    ".ruff_cache",
    ".mypy_cache",
    ".pytest_cache",
];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let write = |name: &str, text: String| fs::write(out.join(name), text).expect("the build folder can be written");
    write("bundled.rs", bundled(&root.join("target/plugins")));
    write("templates.rs", templates(&root));
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

/// Lists of files, each with its place in the project and its content.
fn templates(root: &Path) -> String {
    let mut text =
        String::from("#[allow(clippy::type_complexity)]\npub(super) const TEMPLATES: &[(&str, &[(&str, &[u8])])] = &[\n");
    let sources = LANGUAGES.map(|name| (name, root.join("plugins").join(name), ""));
    for (name, folder, prefix) in sources.into_iter().chain([("guest-sdk", root.join("guest-sdk"), "vendor/signalbus-guest/")]) {
        let mut files = Vec::new();
        collect(&folder, &mut files);
        files.sort();
        let _ = writeln!(text, "    ({name:?}, &[");
        for file in files {
            let place = file.strip_prefix(&folder).expect("it is in the folder").display().to_string();
            let _ = writeln!(text, "        ({:?}, include_bytes!({:?})),", format!("{prefix}{place}"), file.display());
        }
        text += "    ]),\n";
    }
    text + "];\n"
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_BEHIND.contains(&name.as_str()) || path.extension().is_some_and(|end| end == "wasm") || name == "bindings.o" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            // Not the folder: what tools leave in it would count as a change.
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}
