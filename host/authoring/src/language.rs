//! The languages that plugins are written in: what makes a component of a project, and what to
//! install where that is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A language with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Rust,
    C,
    Cpp,
    Zig,
    Go,
    Python,
    JavaScript,
    TypeScript,
}

/// A command, or what to install before there can be one.
type Step = Result<Command, String>;

/// The first that is installed is taken.
const RUST_TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-unknown-unknown"];

/// Major and minor version.
type Version = (u32, u32);

/// The oldest versions that build a component. Debian has older ones of each.
const NODE: Version = (20, 19);
const GO: Version = (1, 27);
const ZIG: Version = (0, 17);

impl Language {
    pub const ALL: [Self; 8] =
        [Self::Rust, Self::C, Self::Cpp, Self::Zig, Self::Go, Self::Python, Self::JavaScript, Self::TypeScript];

    /// As it is written on the command line; its template's folder too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Zig => "zig",
            Self::Go => "go",
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
        }
    }

    /// A shorter name that is understood as well.
    pub const fn short_name(self) -> Option<&'static str> {
        match self {
            Self::JavaScript => Some("js"),
            Self::TypeScript => Some("ts"),
            Self::Cpp => Some("c++"),
            _ => None,
        }
    }

    /// The language of that name, or of that short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name || language.short_name() == Some(name))
    }

    /// The language of a project.
    pub fn of_project(folder: &Path) -> Option<Self> {
        let has = |file: &str| folder.join(file).exists();
        Some(match () {
            () if has("Cargo.toml") => Self::Rust,
            () if has("go.mod") => Self::Go,
            () if has("pyproject.toml") => Self::Python,
            () if has("package.json") && has("tsconfig.json") => Self::TypeScript,
            () if has("package.json") => Self::JavaScript,
            () if has("build.zig") => Self::Zig,
            () if has("Makefile") && has("plugin.cpp") => Self::Cpp,
            () if has("Makefile") && has("plugin.c") => Self::C,
            () => return None,
        })
    }

    /// The commands that build a project.
    pub fn steps(self, project: &Path) -> Vec<Step> {
        match self {
            Self::Rust => vec![rust_target(project).map(|target| command("cargo", &["build", "--release", "--target", target]))],
            Self::C | Self::Cpp => vec![self.clang().and_then(|()| tool("make", "make")).map(|make| command(&make, &[]))],
            Self::Zig => vec![zig(project).map(|zig| command(&zig, &["build"]))],
            Self::Go => {
                let install = "Go 1.27 or later (https://go.dev/dl), or set GOTOOLCHAIN=auto";
                vec![recent("go", &["version"], GO, install, project).map(|go| {
                    let mut build = command(
                        &go,
                        &["build", "-buildmode=c-shared", "-ldflags=-checklinkname=0", "-trimpath", "-o", "plugin.wasm", "."],
                    );
                    build.env("GOOS", "wasip1").env("GOARCH", "wasm");
                    build
                })]
            }
            Self::Python => vec![componentize_py(project).map(|tool| {
                command(&tool, &["-d", "wit", "-w", "bulk-sender-plugin", "componentize", "plugin", "-o", "plugin.wasm"])
            })],
            Self::JavaScript | Self::TypeScript => {
                let install = "Node.js 20.19 or later (https://nodejs.org), which comes with npm";
                let npm = recent("node", &["--version"], NODE, install, project).and_then(|_| tool("npm", install));
                let install = (!has_packages(project)).then(|| npm.clone().map(|npm| command(&npm, &["ci"])));
                install.into_iter().chain([npm.map(|npm| command(&npm, &["run", "build"]))]).collect()
            }
        }
    }

    /// Whatever the Makefile would take: the user's own compiler, wasi-sdk, or one that is installed.
    fn clang(self) -> Result<(), String> {
        if self.has_own_compiler() || tool("clang-19", "").is_ok() {
            return Ok(());
        }
        tool("clang", &format!("it for WebAssembly ({}), or set WASI_SDK_PATH", self.packages())).map(drop)
    }

    fn has_own_compiler(self) -> bool {
        let own = if self == Self::Cpp { "CXX" } else { "CC" };
        [own, "WASI_SDK_PATH"].iter().any(|name| std::env::var_os(name).is_some())
    }

    fn packages(self) -> String {
        let more = if self == Self::Cpp { " libc++-19-dev-wasm32 libc++abi-19-dev-wasm32" } else { "" };
        format!("Debian: `apt install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32{more}`")
    }

    /// What may help where a step fails, if its own words don't.
    pub fn advice(self) -> Option<String> {
        match self {
            Self::C | Self::Cpp if !self.has_own_compiler() => Some(format!(
                "where the linker or a library for WebAssembly is missing, install them all ({}), or set WASI_SDK_PATH",
                self.packages()
            )),
            Self::Python => Some("`python3 -m py_compile plugin.py` shows mistakes of syntax".to_owned()),
            _ => None,
        }
    }

    /// Name and version of a project, as its package file has them.
    pub fn identity(self, project: &Path) -> (String, Option<String>) {
        let read = |file: &str| std::fs::read_to_string(project.join(file)).unwrap_or_default();
        let toml = |file: &str, table: &str| {
            let parsed: toml::Table = toml::from_str(&read(file)).unwrap_or_default();
            let text = |key: &str| Some(parsed.get(table)?.get(key)?.as_str()?.to_owned());
            (text("name"), text("version"))
        };
        let (name, version) = match self {
            Self::Rust => toml("Cargo.toml", "package"),
            Self::Python => toml("pyproject.toml", "project"),
            Self::JavaScript | Self::TypeScript => {
                let parsed: serde_json::Value = serde_json::from_str(&read("package.json")).unwrap_or_default();
                let text = |key: &str| parsed[key].as_str().map(str::to_owned);
                (text("name"), text("version"))
            }
            Self::C | Self::Cpp | Self::Zig | Self::Go => (None, None),
        };
        let folder = || project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.unwrap_or_else(folder), version)
    }

    /// What the build left.
    pub fn product(self, project: &Path) -> Option<PathBuf> {
        match self {
            Self::Rust => rust_product(project),
            _ => Some(project.join("plugin.wasm")).filter(|file| file.exists()),
        }
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The program, if it is there.
fn tool(name: &str, install: &str) -> Result<String, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    if found { Ok(name.to_owned()) } else { Err(format!("`{name}` is not there: install {install}, then try again")) }
}

/// A project may have a tool-chain of its own.
fn rust_target(project: &Path) -> Result<&'static str, String> {
    tool("cargo", "Rust, with rustup (https://rustup.rs)")?;
    let installed = |target: &&str| {
        let mut rustc = command("rustc", &["--print", "target-libdir", "--target", target]);
        let libraries = rustc.current_dir(project).output();
        let folder = libraries.ok().and_then(|output| String::from_utf8(output.stdout).ok());
        folder.is_some_and(|folder| Path::new(folder.trim()).exists())
    };
    let [usual, _] = RUST_TARGETS;
    let missing =
        || format!("Rust's target {usual} is not there: run `rustup target add {usual}` in the project, then try again");
    RUST_TARGETS.into_iter().find(installed).ok_or_else(missing)
}

/// The program, if it is there and not too old. One that does not tell its version is taken: what it
/// says itself will be clearer.
fn recent(name: &str, ask: &[&str], least: Version, install: &str, project: &Path) -> Result<String, String> {
    let program = tool(name, install)?;
    let answer = command(&program, ask).current_dir(project).output();
    let answer = answer.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match version(&answer) {
        Some(found) if found < least => {
            Err(format!("`{name}` is version {}.{}, which is too old: install {install}, then try again", found.0, found.1))
        }
        _ => Ok(program),
    }
}

/// The first version in what a tool says of itself.
fn version(text: &str) -> Option<Version> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..].split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Zig itself, or the one of the Python package. One of them may be too old.
fn zig(project: &Path) -> Result<String, String> {
    let install = "Zig 0.17 (https://ziglang.org), or `pip install ziglang`, which is called `python-zig`";
    let take = |name: &str| recent(name, &["version"], ZIG, install, project);
    take("zig").or_else(|advice| take("python-zig").map_err(|_| advice))
}

/// Whether `npm ci` has come to its end since the list of packages was written.
fn has_packages(project: &Path) -> bool {
    let changed = |file: &str| project.join(file).metadata().and_then(|data| data.modified()).ok();
    match (changed("node_modules/.package-lock.json"), changed("package-lock.json")) {
        (Some(installed), Some(listed)) => installed >= listed,
        // Of another tool than npm, perhaps.
        (_, None) => project.join("node_modules").exists(),
        (None, _) => false,
    }
}

/// In the project's own environment, or wherever it is.
fn componentize_py(project: &Path) -> Result<String, String> {
    let own = project.join(".venv/bin/componentize-py");
    if own.exists() {
        return Ok(own.to_string_lossy().into_owned());
    }
    tool("componentize-py", "").map_err(|_| {
        let install = "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1";
        format!("`componentize-py` is not there: run `{install}` in the project, then try again")
    })
}

/// Cargo knows where it puts things.
fn rust_product(project: &Path) -> Option<PathBuf> {
    let args = ["build", "--release", "--quiet", "--target", rust_target(project).ok()?, "--message-format", "json"];
    let output = Command::new("cargo").args(args).current_dir(project).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let files = messages.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    files.filter_map(|file| file.as_str().map(PathBuf::from)).rfind(|file| file.extension().is_some_and(|end| end == "wasm"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_say() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("v20.19.2\n"), Some((20, 19)));
        assert_eq!(version("0.17.1-dev.3"), Some((0, 17)));
        assert_eq!(version("no version"), None);
        assert!(version("1.9.7") < Some(GO));
    }

    #[test]
    fn packages_are_installed_again_after_a_failure_and_after_a_change() {
        let folder = tempfile::TempDir::new().unwrap();
        let project = folder.path();
        let write = |file: &str, age: u64| {
            let file = fs::File::create(project.join(file)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        assert!(!has_packages(project));
        fs::create_dir(project.join("node_modules")).unwrap();
        assert!(has_packages(project), "without a list there is nothing to install");
        write("package-lock.json", 60);
        assert!(!has_packages(project), "npm writes its own list at the end");
        write("node_modules/.package-lock.json", 30);
        assert!(has_packages(project));
        write("package-lock.json", 10);
        assert!(!has_packages(project));
    }
}
