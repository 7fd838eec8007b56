//! The authors' commands: from `plugin new` to a sent row, in each language, with only the commands of README.

use std::path::Path;

use super::in_each_language;
use crate::harness::broker::{Broker, Kind};
use crate::harness::command::{Project, Said};
use crate::harness::database::Database;
use crate::harness::is_soak;

/// Languages whose tools take minutes for a new project: `make soak` waits for them.
const SLOW: [&str; 4] = ["javascript", "python", "typescript", "zig"];

/// `make plugins` builds the sample with the same command, and other tests run what that makes.
fn differs_from_the_sample_by_its_name_alone(language: &str, project: &Path) {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(language);
    let mut folders = vec![project.to_owned()];
    let mut compared = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
            let named = read(&sample.join(path.strip_prefix(project).unwrap()));
            let named = named.replace("sample-plugin", "invoice-mailer").replace("sample_plugin", "invoice_mailer");
            assert_eq!(read(&path), named, "{}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 5, "{language}: {compared} files");
}

async fn from_plugin_new_to_a_sent_row(language: &str) {
    let database = Database::sqlite().await;
    database
        .run("CREATE TABLE invoice_sent (id INTEGER PRIMARY KEY, customer TEXT); INSERT INTO invoice_sent VALUES (7, 'Ada')")
        .await;
    let project = Project::at(database.folder());
    project.ok(&["plugin", "new", "invoice-mailer", "--lang", language]);
    if SLOW.contains(&language) && !is_soak() {
        return differs_from_the_sample_by_its_name_alone(language, &database.folder().join("invoice-mailer"));
    }
    let plugin = Project::at(&database.folder().join("invoice-mailer"));
    plugin.ok(&["plugin", "build"]);
    let report = plugin.run(&["plugin", "test", "--json"]);
    assert_eq!(report.status, 0, "{report:#?}");
    assert!(report.json()["passed"].as_u64() > Some(30), "{report:#?}");
    let check = plugin.run(&["plugin", "check", "--json"]).json();
    let exports: Vec<&str> = check["contract"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
    let bulk = exports.iter().find(|export| export.starts_with("signalbus:plugin/bulk-sender@0.1.")).unwrap();
    let inspected = plugin.ok(&["plugin", "inspect"]);
    assert!(inspected.contains("name         invoice-mailer\n") && inspected.contains("processed-by signalbus"), "{inspected}");
    assert!(inspected.contains("sha256:") && inspected.contains(&format!("export {bulk};")), "{inspected}");

    let stream = format!("invoices-{language}");
    let broker = Broker::shared(Kind::Redis);
    let project = Project::new(
        database.folder(),
        &format!(
            "[database]\nurl = {:?}\n[connections.bus]\nurl = {:?}\n[signals.InvoiceSent]\nplugin = 'invoice-mailer/plugin.wasm'\n\
             grants = {{ connections = ['bus'] }}\nsettings = {{ connection = 'bus', destination = {stream:?} }}\n",
            database.url,
            broker.url()
        ),
    );
    project.ok(&["flush", "-w", "0"]);
    assert_eq!(database.number("SELECT count(*) FROM invoice_sent").await, 0);
    let mut connection = broker.redis().await;
    let sent: redis::streams::StreamRangeReply = redis::AsyncTypedCommands::xrange_all(&mut connection, &stream).await.unwrap();
    let body: String = sent.ids[0].get("body").unwrap();
    assert_eq!(body, r#"{"id":7,"customer":"Ada"}"#);
}

#[tokio::test]
async fn a_second_rust_project_compiles_only_itself() {
    let folder = tempfile::TempDir::new().unwrap();
    let project = Project::at(folder.path());
    for (name, compiles) in [("first-one", None), ("second-one", Some(false))] {
        project.ok(&["plugin", "new", name, "--lang", "rust"]);
        let said = Project::at(&folder.path().join(name)).run(&["plugin", "build"]);
        assert_eq!(said.status, 0, "{said:#?}");
        assert!(said.stderr.contains(&format!("Compiling {name}")), "{said:#?}");
        assert!(compiles.is_none_or(|compiles| said.stderr.contains("Compiling serde_json") == compiles), "{said:#?}");
        assert!(!folder.path().join(name).join("target").exists());
    }
}

in_each_language!(from_plugin_new_to_a_sent_row: rust, c, cpp, zig, go, python, javascript, typescript);

fn in_an_empty_path(folder: &Path, args: &[&str]) -> Said {
    Project::at(folder).command(args).env("PATH", "/nowhere").output().unwrap().into()
}

#[test]
fn a_missing_tool_is_named_with_its_cure() {
    let folder = tempfile::TempDir::new().unwrap();
    for (language, words) in [
        ("rust", "`cargo` not found: install Rust, with rustup"),
        ("go", "`go` not found: install Go"),
        ("c", "`clang` not found: install it for WebAssembly (Debian: `apt install clang-19"),
        ("zig", "`zig` not found: install Zig"),
        ("python", "`componentize-py` not found: run `python3 -m venv"),
        ("javascript", "`node` not found: install Node.js"),
    ] {
        let name = format!("in-{language}");
        Project::at(folder.path()).ok(&["plugin", "new", &name, "--lang", language]);
        let said = in_an_empty_path(&folder.path().join(name), &["plugin", "build"]);
        assert_eq!(said.status, 1, "{said:#?}");
        assert!(said.stderr.contains(words) && said.stderr.contains("then try again"), "{said:#?}");
    }
}

#[test]
fn a_tool_that_fails_or_is_too_old_is_explained() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::TempDir::new().unwrap();
    let failed = "see its output above";
    for (name, language, tools, compiler, words) in [
        ("in-c", "c", [("clang", ""), ("make", "exit 2")], None, "the linker or a WebAssembly library is missing"),
        (
            "with-own",
            "c",
            [("clang", ""), ("make", "exit 2")],
            Some("clang"),
            "`make` failed with exit status: 2; see its output",
        ),
        (
            "in-python",
            "python",
            [("componentize-py", "exit 1"), ("python3", "")],
            None,
            "`python3 -m py_compile plugin.py` shows",
        ),
        ("in-js", "javascript", [("npm", ""), ("node", "echo v20.18.3")], None, "`node` 20.18 is too old: install Node.js 20.19"),
        ("on-new-node", "javascript", [("npm", "exit 1"), ("node", "echo v22.1.0")], None, "`npm ci` failed with exit status: 1"),
        // The project's own toolchain has the target; that of the parent folder does not.
        (
            "in-rust",
            "rust",
            [("cargo", "exit 101"), ("rustc", "[ -e Cargo.toml ] && echo /")],
            None,
            "cargo build --release --target",
        ),
    ] {
        Project::at(folder.path()).ok(&["plugin", "new", name, "--lang", language]);
        let path = folder.path().join("tools-for").join(name);
        std::fs::create_dir_all(&path).unwrap();
        for (tool, script) in tools {
            std::fs::write(path.join(tool), format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(path.join(tool), Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Project::at(folder.path()).command(&["plugin", "build", name]);
        command.env("PATH", &path).env_remove("CC").env_remove("WASI_SDK_PATH");
        let said = Said::from(command.envs(compiler.map(|compiler| ("CC", compiler))).output().unwrap());
        assert!(said.status == 1 && said.stderr.contains(words), "{name}: {said:#?}");
        assert_eq!(said.stderr.contains("apt install clang-19 lld-19 wasi-libc"), name == "in-c", "{said:#?}");
        assert_eq!(said.stderr.contains(failed), name != "in-js", "{said:#?}");
    }
}

#[test]
fn a_copy_elsewhere_leaves_a_component_in_the_project_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let project = Project::at(folder.path());
    project.ok(&["plugin", "new", "mailer", "--lang", "c"]);
    let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    // The second build has nothing to do for make.
    for copy in ["first.wasm", "second.wasm"] {
        let said = project.ok(&["plugin", "build", "mailer", "--output", copy]);
        assert!(said.contains(&format!("\n{copy} ")), "{said}");
        assert!(read(copy).starts_with(b"\0asm\x0d\0\x01\0"), "{copy} is not a component");
        assert_eq!(read(copy), read("mailer/plugin.wasm"));
        assert!(project.ok(&["plugin", "inspect", copy]).contains("name         mailer\n"));
    }
    let said = project.ok(&["plugin", "build", "mailer"]);
    assert!(said.contains("mailer/plugin.wasm ") && read("mailer/plugin.wasm") == read("first.wasm"), "{said}");
}

#[test]
fn nothing_is_overwritten_and_names_are_checked() {
    let folder = tempfile::TempDir::new().unwrap();
    let project = Project::at(folder.path());
    project.ok(&["plugin", "new", "mailer", "--lang", "c"]);
    for (args, status, words) in [
        (["mailer", "c"], 1, "\"mailer\" already exists"),
        (["Mailer", "c"], 64, "invalid plugin name \"Mailer\""),
        (["mailer-", "c"], 64, "invalid plugin name \"mailer-\""),
        (["aux", "go"], 64, "\"aux\" is a name reserved by Windows"),
        (["signalbus-guest", "rust"], 64, "\"signalbus-guest\" is the name of the SDK that the project is built with"),
        (["other", "cobol"], 64, "possible values: rust, c, cpp, zig, go, python, javascript, typescript"),
    ] {
        let said = project.run(&["plugin", "new", args[0], "--lang", args[1]]);
        assert!(said.status == status && said.stderr.contains(words), "{said:#?}");
    }
    let said = project.run(&["plugin", "build"]);
    assert!(said.status == 64 && said.stderr.contains("is not a plugin project"), "{said:#?}");
    let said = project.run(&["plugin", "build", "mailr"]);
    assert!(said.status == 64 && said.stderr.contains("\"mailr\" not found"), "{said:#?}");
    let said = project.run(&["plugin", "build", "mailer/plugin.c"]);
    assert!(said.status == 64 && said.stderr.contains("\"mailer/plugin.c\" is a file"), "{said:#?}");
    let said = project.run(&["plugin", "check", "mailer/rows.json"]);
    assert!(said.status == 1 && said.stderr.contains("not a WebAssembly file"), "{said:#?}");
}
