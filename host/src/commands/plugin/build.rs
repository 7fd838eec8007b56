//! `plugin build`: calls the tool-chain of a project's language, and leaves a component.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::{Exit, Failure, print};
use super::size;
use signalbus_authoring::component::{self, Kind};
use signalbus_authoring::language::Language;

/// Builds the project in `folder`; the component is its `plugin.wasm`, or `target`.
pub(crate) fn run(folder: &Path, target: Option<&Path>) -> Result<Exit, Failure> {
    if !folder.is_dir() {
        let fault = if folder.exists() { "is a file: a project is a folder" } else { "is not there" };
        return Err(Failure::new(Exit::Usage, format!("\"{}\" {fault}", folder.display())));
    }
    let language = Language::of_project(folder).ok_or_else(|| {
        let known = "Cargo.toml, go.mod, pyproject.toml, package.json, build.zig, or a Makefile with a plugin.c or plugin.cpp";
        Failure::new(Exit::Usage, format!("\"{}\" is no plugin's project: there is no {known}", folder.display()))
    })?;
    let project = folder.canonicalize()?;
    for step in language.steps(&project) {
        let step = step.map_err(|advice| Failure::new(Exit::Failed, advice))?;
        call(step, &project, language)?;
    }
    // "plugin.wasm", not "./plugin.wasm".
    let usual = || folder.strip_prefix(".").unwrap_or(folder).join("plugin.wasm");
    let target = target.map_or_else(usual, Path::to_owned);
    let built = language
        .product(&project)
        .ok_or_else(|| Failure::new(Exit::Failed, format!("the build of \"{}\" left no WebAssembly file", folder.display())))?;
    finish(&built, &project, &target, language)?;
    let bytes = std::fs::metadata(&target)?.len();
    print(format_args!("{} {}", target.display(), size(usize::try_from(bytes).unwrap_or(usize::MAX))));
    Ok(Exit::Done)
}

fn call(mut step: Command, project: &Path, language: Language) -> Result<(), Failure> {
    let redactor = redactor(&step);
    print(format_args!("== {redactor}"));
    // What the tools say is no result of this command.
    let status = step.current_dir(project).stdout(Stdio::from(std::io::stderr())).status();
    let fault = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => {
            let advice = language.advice().map_or_else(String::new, |advice| format!("; {advice}"));
            format!("`{redactor}` ended with {status}; its own words are above{advice}")
        }
        Err(error) => format!("`{redactor}` can't be started: {error}"),
    };
    Err(Failure::new(Exit::Failed, fault))
}

fn redactor(step: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(step.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value?.to_str()?))));
    words.push(step.get_program().to_string_lossy().into_owned());
    words.extend(step.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Makes a component of what the tools left, and puts it in its place. Where they leave it in the
/// project, it is one there too: the next build may find nothing to do.
fn finish(built: &Path, project: &Path, target: &Path, language: Language) -> Result<(), Failure> {
    let bytes = super::inspect::read(built)?;
    let fault = |error: anyhow::Error| Failure::new(Exit::Failed, format!("\"{}\" is no plugin: {error:#}", built.display()));
    let in_project = built == project.join("plugin.wasm");
    let component = match component::kind(&bytes).map_err(fault)? {
        // The tools had nothing to do.
        Kind::Component if in_project && component::is_labelled(&bytes) => bytes,
        kind => {
            let component =
                if kind == Kind::Component { bytes } else { component::encode(&bytes, &project.join("wit")).map_err(fault)? };
            let (name, version) = language.identity(project);
            let component = component::label(&component, &name, version.as_deref()).map_err(fault)?;
            if in_project {
                put(&component, built)?;
            }
            component
        }
    };
    if in_project && target.canonicalize().ok() == built.canonicalize().ok() {
        return Ok(());
    }
    put(&component, target)
}

/// Puts the component in its place at once: a relay may watch the file.
fn put(component: &[u8], target: &Path) -> Result<(), Failure> {
    let mut beside = PathBuf::from(target).into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, component).and_then(|()| std::fs::rename(&beside, target));
    written.map_err(|error| Failure::new(Exit::Failed, format!("\"{}\" cannot be written: {error}", target.display())))
}
