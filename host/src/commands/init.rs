//! `init`: a starter project to play with.

use std::path::Path;

use super::{Exit, Failure, print};
use crate::outbox::Outbox;

mod bundled {
    include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
}

const CONFIG: &str = include_str!("init/signalbus.toml");
const TABLES: &str = include_str!("init/sample.sql");

pub(crate) async fn run(folder: &Path, signals: u32) -> Result<Exit, Failure> {
    let config = folder.join("signalbus.toml");
    let database = folder.join("outbox.db");
    for file in [&config, &database] {
        if file.exists() {
            let text = format!("{} is there already; name another folder", file.display());
            return Err(Failure::new(Exit::Failed, text));
        }
    }
    std::fs::create_dir_all(folder.join("plugins"))?;
    std::fs::write(&config, CONFIG)?;
    for (name, component) in bundled::BUNDLED {
        std::fs::write(folder.join(format!("plugins/{name}.wasm")), component)?;
    }
    let outbox = Outbox::open(&format!("sqlite://{}?mode=rwc", database.display()), 1)?;
    outbox.migrate().await?;
    outbox.run_script(&TABLES.replace("{signals}", &signals.to_string())).await?;
    print(format_args!("made {}, {} with {signals} signals of each type, and plugins/", config.display(), database.display()));
    if bundled::BUNDLED.is_empty() {
        print("this binary was built without plugins: copy log.wasm and starter.wasm into plugins/ (`make plugins`)");
    }
    if folder != Path::new(".") {
        print(format_args!("next: cd {}", folder.display()));
    }
    print("      signalbus check          is everything as it should be?");
    print("      signalbus pending        what waits?");
    print("      signalbus flush -w 0     send it");
    Ok(Exit::Done)
}
