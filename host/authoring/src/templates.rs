//! Project templates, one per language: each builds, and passes `plugin test`, as it is.
//!
//! They are the samples in `plugins/`, bundled by the build script; here only names are replaced. Next:
//! the command `plugin new`, which writes the files.

use crate::language::Language;

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The project name used in the templates.
const SAMPLE: &str = "sample-plugin";

/// The files of a new project, each with its path in the project's folder.
pub fn project(language: Language, name: &str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    files(language).map(move |(file, content)| (file, renamed(content, name)))
}

/// Why a plugin cannot have this name, or `None` if it can.
pub fn name_fault(name: &str, language: Language) -> Option<String> {
    if !is_name(name) {
        return Some(format!(
            "invalid plugin name \"{name}\"; use lower-case letters, digits and hyphens between them, as in \"invoice-mailer\""
        ));
    }
    reserved(name, language).map(|reason| format!("\"{name}\" is {reason}; choose another name"))
}

fn files(language: Language) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let of = |folder: &str| TEMPLATES.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, files)| *files);
    let sdk = if language == Language::Rust { of("guest-sdk") } else { &[] };
    of(language.name()).iter().chain(sdk).copied()
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-')
}

/// What a name is reserved for, if a project with that name could not be built.
fn reserved(name: &str, language: Language) -> Option<&'static str> {
    let numbered = |device: &str| name.strip_prefix(device).is_some_and(|end| matches!(end.as_bytes(), [b'1'..=b'9']));
    if ["aux", "con", "nul", "prn"].contains(&name) || numbered("com") || numbered("lpt") {
        // Go rejects these names on every system.
        return Some("a name reserved by Windows");
    }
    (language == Language::Rust && name == "signalbus-guest").then_some("the name of the SDK that the project is built with")
}

/// Replaces the sample's name by the project's. Binary files stay as they are.
fn renamed(content: &[u8], name: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(content) else { return content.to_vec() };
    let text = text.replace(SAMPLE, name).replace(&SAMPLE.replace('-', "_"), &name.replace('-', "_"));
    text.replace("../../guest-sdk", "vendor/signalbus-guest").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_a_template_with_the_contract_inside() {
        for language in Language::ALL {
            let files: Vec<&str> = files(language).map(|(file, _)| file).collect();
            for file in ["README.md", "rows.json", "wit/signalbus.wit"] {
                assert!(files.contains(&file), "{}: no {file} in {files:?}", language.name());
            }
        }
    }

    #[test]
    fn the_project_name_replaces_the_sample_name() {
        let text = renamed(b"name = \"sample-plugin\", sample_plugin.wasm", "mail-it");
        assert_eq!(text, b"name = \"mail-it\", mail_it.wasm");
        assert_eq!(renamed(b"\xff sample-plugin", "x"), b"\xff sample-plugin");
        assert!(
            is_name("mail-it2") && !is_name("Mail") && !is_name("2mail") && !is_name("") && !is_name("a b") && !is_name("mail-")
        );
    }

    #[test]
    fn names_that_cannot_be_built_are_reserved() {
        for (name, language, free) in [
            ("signalbus-guest", Language::Rust, false),
            ("signalbus-guest", Language::C, true),
            ("con", Language::Go, false),
            ("com1", Language::Zig, false),
            ("com", Language::Go, true),
            ("com0", Language::Go, true),
            ("com10", Language::Go, true),
            ("comx", Language::Go, true),
            // In Go, the module path has a prefix before the name.
            ("signalbus", Language::Go, true),
            ("log", Language::Go, true),
        ] {
            assert_eq!(reserved(name, language).is_none(), free, "{name} in {}", language.name());
        }
        let (_, module) = files(Language::Go).find(|(file, _)| *file == "go.mod").unwrap();
        assert!(renamed(module, "log").starts_with(b"module example.com/log\n"));
    }
}
