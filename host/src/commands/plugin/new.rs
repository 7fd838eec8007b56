//! `plugin new`: creates a project that builds, and passes `plugin test`, as it is. It never writes into
//! an existing folder.
//!
//! The files are in `signalbus_authoring::templates`.

use std::path::Path;

use signalbus_authoring::language::Language;
use signalbus_authoring::templates;

use super::super::{Exit, Failure, print};

pub(crate) fn run(folder: &Path, language: Language) -> Result<Exit, Failure> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(fault) = templates::name_fault(name, language) {
        return Err(Failure::new(Exit::Usage, fault));
    }
    if folder.exists() {
        let text = format!("\"{}\" already exists; choose another name, or remove it", folder.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    for (file, content) in templates::project(language, name) {
        let path = folder.join(file);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, content));
        written.map_err(|error| Failure::new(Exit::Failed, format!("\"{}\" cannot be written: {error}", path.display())))?;
    }
    print(format_args!("created {}/, a plugin in {} that publishes each row as JSON", folder.display(), language.name()));
    print(format_args!("next: cd {}", folder.display()));
    print("      signalbus plugin build     builds plugin.wasm");
    print("      signalbus plugin test      checks the contract and runs rows.json");
    Ok(Exit::Done)
}
