//! `init`: creates a starter project. It never overwrites a file.
//!
//! The files are beside this one, in `init/`; the plugins are bundled by the build script.

use std::path::Path;

use super::{Exit, Failure, print};
use signalbus_outbox::Outbox;
use signalbus_relay::config::sqlite_url;

mod bundled {
    include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
}

const CONFIG: &str = include_str!("init/signalbus.toml");
const TABLES: &str = include_str!("init/sample.sql");

pub(crate) async fn run(folder: &Path, signals: u32) -> Result<Exit, Failure> {
    // "signalbus.toml", not "./signalbus.toml".
    let folder = folder.strip_prefix(".").unwrap_or(folder);
    let config = folder.join("signalbus.toml");
    let database = folder.join("outbox.db");
    let plugins = folder.join("plugins");
    for file in [&config, &database, &plugins] {
        if file.exists() {
            let text = format!("\"{}\" already exists; choose another folder, as in `signalbus init demo`", file.display());
            return Err(Failure::new(Exit::Failed, text));
        }
    }
    std::fs::create_dir_all(&plugins).map_err(|error| unwritable(&plugins, &error))?;
    std::fs::write(&config, CONFIG).map_err(|error| unwritable(&config, &error))?;
    for (name, component) in bundled::BUNDLED {
        let file = plugins.join(format!("{name}.wasm"));
        std::fs::write(&file, component).map_err(|error| unwritable(&file, &error))?;
    }
    let outbox = Outbox::open(&sqlite_url(&database, "?mode=rwc"), 1)?;
    outbox.migrate().await?;
    outbox.run_script(&TABLES.replace("{signals}", &signals.to_string())).await?;
    print(format_args!("created {}, {} with {signals} signals of each type, and plugins/", config.display(), database.display()));
    if bundled::BUNDLED.is_empty() {
        print("this binary bundles no plugins: build them with `make plugins`, and copy log.wasm and starter.wasm into plugins/");
    }
    if !folder.as_os_str().is_empty() {
        print(format_args!("next: cd {}", folder.display()));
    }
    print("      signalbus check          validate configuration, database and plugins");
    print("      signalbus pending        show what is waiting");
    print("      signalbus flush -w 0     send it");
    Ok(Exit::Done)
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("\"{}\" cannot be written: {error}; choose another folder", file.display()))
}
