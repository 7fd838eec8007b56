//! Names and source lines of places in a component, from its own sections.
//!
//! Runs in a worker process: a demangled name or the ranges of a debug section can be of any size.

use std::fmt::Write as _;

use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// A place in a component: a function, and an offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub function: u32,
    pub offset: u64,
}

/// Longest name, and longest path of a source file.
const LONGEST: usize = 512;

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(function, offset)| Some((function.parse().ok()?, offset.parse().ok()?)));
        parts.map(|(function, offset)| Self { function, offset }).ok_or_else(|| format!("{text:?} is no place"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.function, self.offset)
    }
}

/// A core module within a component.
#[derive(Default)]
struct Module<'a> {
    /// Where its code begins and ends, in the file.
    code: std::ops::Range<u64>,
    names: Vec<(u32, &'a str)>,
    sections: Vec<(&'a str, &'a [u8])>,
}

/// Returns a block of lines for each place, and an empty line after it: a function's name, and in the next line, behind
/// a blank, where in its source that is, if this is known. Inlined functions come first.
pub(super) fn locate(component: &[u8], places: &[Place]) -> String {
    let modules = modules(component);
    let mut told = String::new();
    for place in places {
        if let Some(module) = modules.iter().find(|module| module.code.contains(&place.offset)) {
            module.locate(place, &mut told);
        }
        told.push('\n');
    }
    told
}

fn modules(component: &[u8]) -> Vec<Module<'_>> {
    let mut modules: Vec<Module<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let Ok(payload) = payload else { break };
        match payload {
            Payload::Version { encoding: wasmparser::Encoding::Module, .. } => modules.push(Module::default()),
            Payload::CodeSectionStart { range, .. } => {
                if let Some(module) = modules.last_mut() {
                    module.code = range.start as u64..range.end as u64;
                }
            }
            Payload::CustomSection(section) => {
                if let Some(module) = modules.last_mut() {
                    module.keep(&section);
                }
            }
            _ => {}
        }
    }
    modules
}

impl<'a> Module<'a> {
    fn keep(&mut self, section: &wasmparser::CustomSectionReader<'a>) {
        if section.name().starts_with(".debug_") {
            self.sections.push((section.name(), section.data()));
        }
        let KnownCustom::Name(names) = section.as_known() else { return };
        for subsection in names.into_iter().flatten() {
            if let Name::Function(functions) = subsection {
                self.names = functions.into_iter().flatten().map(|naming| (naming.index, naming.name)).collect();
            }
        }
    }

    fn locate(&self, place: &Place, told: &mut String) {
        let own = self.names.iter().find(|(index, _)| *index == place.function).map(|(_, name)| *name);
        let own = own.map_or_else(|| format!("<wasm function {}>", place.function), demangled);
        let section = |id: SectionId| {
            let found = self.sections.iter().find(|(name, _)| *name == id.name());
            Ok::<_, addr2line::gimli::Error>(EndianSlice::new(found.map_or(&[][..], |(_, data)| *data), LittleEndian))
        };
        let mut found = false;
        if let Ok(context) = Dwarf::load(section).and_then(addr2line::Context::from_dwarf)
            && let Ok(mut frames) = context.find_frames(place.offset - self.code.start).skip_all_loads()
        {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| name.raw_name().ok()).map(|name| demangled(&name));
                let name = name.unwrap_or_else(|| if found { "<inlined function>".to_owned() } else { own.clone() });
                told.push_str(&name);
                told.push('\n');
                if let Some(location) = frame.location
                    && let Some(file) = location.file
                {
                    told.push(' ');
                    told.push_str(&line(file));
                    for number in [location.line, location.column].into_iter().flatten() {
                        let _ = write!(told, ":{number}");
                    }
                    told.push('\n');
                }
                found = true;
            }
        }
        if !found {
            told.push_str(&own);
            told.push('\n');
        }
    }
}

/// Demangles a name of Rust or C++.
fn demangled(name: &str) -> String {
    let mut text = Bounded::default();
    // What does not fit is cut.
    let _ = match (rustc_demangle::try_demangle(name), cpp_demangle::Symbol::new(name)) {
        (Ok(name), _) => write!(text, "{name}").is_ok(),
        (Err(_), Ok(name)) => name.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::default()).is_ok(),
        (Err(_), Err(_)) => write!(text, "{name}").is_ok(),
    };
    line(&text.0)
}

/// A text without what would begin another line.
fn line(text: &str) -> String {
    let mut text = signalbus_core::text::printable(text).into_owned();
    signalbus_core::text::cut(&mut text, LONGEST);
    text
}

/// Takes what fits, and then fails.
#[derive(Default)]
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() > LONGEST {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
