//! Projects to start from: each builds, and passes `plugin test`, as it is.

use crate::language::Language;

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The name of the templates' own project.
const SAMPLE: &str = "sample-plugin";

/// The files of a project in a language, for a plugin of this name: each with its place in the
/// project's folder.
pub fn project(language: Language, name: &str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    files(language).map(move |(file, content)| (file, named(content, name)))
}

/// Why a plugin can't have this name.
pub fn name_fault(name: &str, language: Language) -> Option<String> {
    if !is_name(name) {
        return Some(format!(
            "\"{name}\" is no name for a plugin: take lower-case letters, digits and hyphens between them, as in \"invoice-mailer\""
        ));
    }
    taken(name, language).map(|owner| format!("\"{name}\" is {owner}; take another name"))
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

/// Whose name it is, where a project of that name can't be built.
fn taken(name: &str, language: Language) -> Option<&'static str> {
    let numbered = |device: &str| name.strip_prefix(device).is_some_and(|end| matches!(end.as_bytes(), [b'1'..=b'9']));
    if ["aux", "con", "nul", "prn"].contains(&name) || numbered("com") || numbered("lpt") {
        // Go refuses it on every system.
        return Some("a name that Windows keeps for itself");
    }
    (language == Language::Rust && name == "signalbus-guest").then_some("the name of the SDK that the project is built with")
}

/// Puts the project's name in the place of the sample's; files that are no text stay.
fn named(content: &[u8], name: &str) -> Vec<u8> {
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
    fn the_name_takes_the_place_of_the_samples() {
        let text = named(b"name = \"sample-plugin\", sample_plugin.wasm", "mail-it");
        assert_eq!(text, b"name = \"mail-it\", mail_it.wasm");
        assert_eq!(named(b"\xff sample-plugin", "x"), b"\xff sample-plugin");
        assert!(
            is_name("mail-it2") && !is_name("Mail") && !is_name("2mail") && !is_name("") && !is_name("a b") && !is_name("mail-")
        );
    }

    #[test]
    fn names_that_cannot_be_built_are_taken() {
        for (name, language, free) in [
            ("signalbus-guest", Language::Rust, false),
            ("signalbus-guest", Language::C, true),
            ("con", Language::Go, false),
            ("com1", Language::Zig, false),
            ("com", Language::Go, true),
            ("com0", Language::Go, true),
            ("com10", Language::Go, true),
            ("comx", Language::Go, true),
            // The project's module has a path before its name.
            ("signalbus", Language::Go, true),
            ("log", Language::Go, true),
        ] {
            assert_eq!(taken(name, language).is_none(), free, "{name} in {}", language.name());
        }
        let (_, module) = files(Language::Go).find(|(file, _)| *file == "go.mod").unwrap();
        assert!(named(module, "log").starts_with(b"module example.com/log\n"));
    }
}
