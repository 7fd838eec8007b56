//! `plugin build`: runs the toolchain of a project's language, and writes a component.
//!
//! What to run and what to install is in `signalbus_authoring::language`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::{Exit, Failure, print};
use super::size;
use signalbus_authoring::component::{self, Kind};
use signalbus_authoring::language::Language;

/// Builds the project in `folder`; the component is its `plugin.wasm`, or `target`.
pub(crate) fn run(folder: &Path, target: Option<&Path>) -> Result<Exit, Failure> {
    if !folder.is_dir() {
        let fault = if folder.exists() { "is a file, not a project folder" } else { "not found" };
        return Err(Failure::new(Exit::Usage, format!("\"{}\" {fault}", folder.display())));
    }
    let language = Language::of_project(folder).ok_or_else(|| {
        let known = "Cargo.toml, go.mod, pyproject.toml, package.json, build.zig, or a Makefile with a plugin.c or plugin.cpp";
        Failure::new(Exit::Usage, format!("\"{}\" is not a plugin project: found no {known}", folder.display()))
    })?;
    let project = folder.canonicalize()?;
    for step in language.steps(&project) {
        let step = step.map_err(|advice| Failure::new(Exit::Failed, advice))?;
        call(step, &project, language)?;
    }
    // "plugin.wasm", not "./plugin.wasm".
    let usual = || folder.strip_prefix(".").unwrap_or(folder).join("plugin.wasm");
    let target = target.map_or_else(usual, Path::to_owned);
    let built = language.product(&project).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("the build of \"{}\" produced no WebAssembly file", folder.display()))
    })?;
    finish(&built, &project, &target, language)?;
    let bytes = std::fs::metadata(&target)?.len();
    print(format_args!("{} {}", target.display(), size(usize::try_from(bytes).unwrap_or(usize::MAX))));
    Ok(Exit::Done)
}

fn call(mut step: Command, project: &Path, language: Language) -> Result<(), Failure> {
    let line = command_line(&step);
    print(format_args!("== {line}"));
    // The output of the tools is not the result of this command.
    let status = step.current_dir(project).stdout(Stdio::from(std::io::stderr())).status();
    let fault = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => {
            let advice = language.advice().map_or_else(String::new, |advice| format!("; {advice}"));
            format!("`{line}` failed with {status}; see its output above{advice}")
        }
        Err(error) => format!("`{line}` cannot be started: {error}"),
    };
    Err(Failure::new(Exit::Failed, fault))
}

/// The command as one would type it, with the variables that are set for it.
fn command_line(step: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(step.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value?.to_str()?))));
    words.push(step.get_program().to_string_lossy().into_owned());
    words.extend(step.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Turns what the tools produced into a labelled component and writes it to `target`. If they write
/// `plugin.wasm` in the project, that file is replaced too: the next build may find nothing to do.
fn finish(built: &Path, project: &Path, target: &Path, language: Language) -> Result<(), Failure> {
    let bytes = super::inspect::read(built)?;
    let fault = |error: anyhow::Error| Failure::new(Exit::Failed, format!("\"{}\" is not a plugin: {error:#}", built.display()));
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

/// Writes the component and renames it into place, since a relay may be watching the file.
fn put(component: &[u8], target: &Path) -> Result<(), Failure> {
    let mut beside = PathBuf::from(target).into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, component).and_then(|()| std::fs::rename(&beside, target));
    written.map_err(|error| Failure::new(Exit::Failed, format!("\"{}\" cannot be written: {error}", target.display())))
}
