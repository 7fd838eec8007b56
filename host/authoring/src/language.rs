//! The languages that plugins are written in: how to recognise a project, which commands build it,
//! and what to install if a tool is missing.
//!
//! It only says what to run; the command `plugin build` runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A language with a project template.
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

/// A command, or what to install to be able to run it.
type Step = Result<Command, String>;

/// In order of preference: the first one installed is used.
const RUST_TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-unknown-unknown"];

/// Major and minor version.
type Version = (u32, u32);

/// The oldest versions that can build a component. Debian packages older ones.
const NODE: Version = (20, 19);
const GO: Version = (1, 27);
const ZIG: Version = (0, 17);

impl Language {
    pub const ALL: [Self; 8] =
        [Self::Rust, Self::C, Self::Cpp, Self::Zig, Self::Go, Self::Python, Self::JavaScript, Self::TypeScript];

    /// The name on the command line, and of the template's folder.
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

    /// A short name that the command line accepts too.
    pub const fn short_name(self) -> Option<&'static str> {
        match self {
            Self::JavaScript => Some("js"),
            Self::TypeScript => Some("ts"),
            Self::Cpp => Some("c++"),
            _ => None,
        }
    }

    /// The language with this name or short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name || language.short_name() == Some(name))
    }

    /// The language of a project, recognised by its files.
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
            Self::Rust => vec![rust_target(project).map(|target| cargo(project, &["build", "--release", "--target", target]))],
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
                let install = "Node.js 20.19 or later (https://nodejs.org), which includes npm";
                let npm = recent("node", &["--version"], NODE, install, project).and_then(|_| tool("npm", install));
                let install = (!has_packages(project)).then(|| npm.clone().map(|npm| command(&npm, &["ci"])));
                install.into_iter().chain([npm.map(|npm| command(&npm, &["run", "build"]))]).collect()
            }
        }
    }

    /// Checks that there is a compiler for the Makefile: the user's own, wasi-sdk, or an installed clang.
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

    /// A hint for when a step fails and its own output does not help.
    pub fn advice(self) -> Option<String> {
        match self {
            Self::C | Self::Cpp if !self.has_own_compiler() => Some(format!(
                "if the linker or a WebAssembly library is missing, install them all ({}), or set WASI_SDK_PATH",
                self.packages()
            )),
            Self::Python => Some("`python3 -m py_compile plugin.py` shows syntax errors".to_owned()),
            _ => None,
        }
    }

    /// The name and version of a project, from its package file, or else the name of its folder.
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

    /// The file that the build produced.
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

/// Cargo, with a folder for its output that all projects share, so that the second one does not compile everything
/// anew. What the user has set comes first.
fn cargo(project: &Path, args: &[&str]) -> Command {
    let mut cargo = command("cargo", args);
    let set = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let configured = |folder: &Path| ["config.toml", "config"].iter().any(|file| folder.join(".cargo").join(file).exists());
    if let Some(cache) = signalbus_plugin::cache_folder().filter(|_| !set && !project.ancestors().any(configured)) {
        cargo.env("CARGO_TARGET_DIR", cache.join("rust-target"));
    }
    cargo
}

/// Looks for a program on PATH.
fn tool(name: &str, install: &str) -> Result<String, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    if found { Ok(name.to_owned()) } else { Err(format!("`{name}` not found: install {install}, then try again")) }
}

/// The Rust target to build for. It is looked up in the project, which may pin its own toolchain.
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
        || format!("Rust target {usual} is not installed: run `rustup target add {usual}` in the project, then try again");
    RUST_TARGETS.into_iter().find(installed).ok_or_else(missing)
}

/// Looks for a program on PATH and checks its version. A program without a recognisable version is
/// accepted: its own error message will be clearer.
fn recent(name: &str, ask: &[&str], least: Version, install: &str, project: &Path) -> Result<String, String> {
    let program = tool(name, install)?;
    let answer = command(&program, ask).current_dir(project).output();
    let answer = answer.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match version(&answer) {
        Some(found) if found < least => {
            Err(format!("`{name}` {}.{} is too old: install {install}, then try again", found.0, found.1))
        }
        _ => Ok(program),
    }
}

/// The first version number in the output of a tool.
fn version(text: &str) -> Option<Version> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..].split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Zig itself, or the one from the Python package: either may be too old.
fn zig(project: &Path) -> Result<String, String> {
    let install = "Zig 0.17 (https://ziglang.org), or `pip install ziglang`, which is called `python-zig`";
    let find = |name: &str| recent(name, &["version"], ZIG, install, project);
    find("zig").or_else(|advice| find("python-zig").map_err(|_| advice))
}

/// Whether `npm ci` has completed since `package-lock.json` last changed.
fn has_packages(project: &Path) -> bool {
    let changed = |file: &str| project.join(file).metadata().and_then(|data| data.modified()).ok();
    match (changed("node_modules/.package-lock.json"), changed("package-lock.json")) {
        (Some(installed), Some(listed)) => installed >= listed,
        // Perhaps installed by a tool other than npm.
        (_, None) => project.join("node_modules").exists(),
        (None, _) => false,
    }
}

/// From the project's own virtual environment, or else from PATH.
fn componentize_py(project: &Path) -> Result<String, String> {
    let own = project.join(".venv/bin/componentize-py");
    if own.exists() {
        return Ok(own.to_string_lossy().into_owned());
    }
    tool("componentize-py", "").map_err(|_| {
        let install = "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1";
        format!("`componentize-py` not found: run `{install}` in the project, then try again")
    })
}

/// Asks Cargo where it wrote the component.
fn rust_product(project: &Path) -> Option<PathBuf> {
    let args = ["build", "--release", "--quiet", "--target", rust_target(project).ok()?, "--message-format", "json"];
    let output = cargo(project, &args).current_dir(project).output().ok()?;
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
    fn versions_are_found_in_the_output_of_tools() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("v20.19.2\n"), Some((20, 19)));
        assert_eq!(version("0.17.1-dev.3"), Some((0, 17)));
        assert_eq!(version("no version"), None);
        assert!(version("1.9.7") < Some(GO));
    }

    #[test]
    fn packages_are_reinstalled_after_a_failure_and_after_a_change() {
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
