//! Bundles the samples of every language as templates for `signalbus plugin new`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const LANGUAGES: [&str; 8] = ["rust", "c", "cpp", "zig", "go", "python", "javascript", "typescript"];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("templates.rs"), templates(&root)).expect("the build folder is writable");
}

/// Rust source of the templates: for each language its files, each with its path and content.
fn templates(root: &Path) -> String {
    let mut text = String::from(
        "#[allow(clippy::type_complexity, reason = \"generated\")]\nconst TEMPLATES: &[(&str, &[(&str, &[u8])])] = &[\n",
    );
    let sources = LANGUAGES.map(|name| (name, root.join("plugins").join(name), ""));
    for (name, folder, prefix) in sources.into_iter().chain([("guest-sdk", root.join("guest-sdk"), "vendor/signalbus-guest/")]) {
        let ignored = fs::read_to_string(folder.join(".gitignore")).unwrap_or_default();
        let mut files = Vec::new();
        collect(&folder, "", &ignored, &mut files);
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

/// Collects the files of a project, except build output, which its own `.gitignore` (`ignored`) lists.
fn collect(folder: &Path, within: &str, ignored: &str, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the folder is readable").path();
        let place = format!("{within}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if ignored.lines().any(|pattern| matches(pattern, &place)) {
            continue;
        }
        if path.is_dir() {
            collect(&path, &place, ignored, files);
        } else {
            // Not the folder: build output in it would count as a change.
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}

/// Whether a line of a `.gitignore` matches a path such as `/src/lib.rs`. Supports the patterns that
/// the projects use: `/name`, `name` and `*.end`, each with or without a trailing slash.
fn matches(pattern: &str, place: &str) -> bool {
    let pattern = pattern.trim_end_matches('/');
    let (start, rest) = pattern.split_at_checked(1).unwrap_or_default();
    let plain = start != "!" && !rest.contains(['*', '?', '[', '/']);
    assert!(plain || start == "#", "\"{pattern}\" in a .gitignore is not supported here");
    match start {
        "" | "#" => false,
        "/" => place == pattern,
        "*" => place.ends_with(rest),
        _ => place.rsplit('/').next() == Some(pattern),
    }
}
