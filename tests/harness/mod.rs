//! What the end-to-end tests stand on: real servers, real guests, the real command.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod bouncer;
pub mod broker;
pub mod bus;
pub mod command;
pub mod database;
pub mod disk;
pub mod lane;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod relay;
pub mod server;
pub mod witness;

use std::path::PathBuf;

/// The component of a test guest, as `make guests` builds it.
pub fn guest(name: &str) -> PathBuf {
    let folder = target().join("wasm32-wasip2/guest");
    let files = [folder.join(format!("examples/{name}.wasm")), folder.join(format!("{name}.wasm"))];
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("there is no guest \"{name}\": run `make guests` first"))
}

/// The folder that builds go to.
pub fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// How much of something a test does: the usual, or with `make soak` as much as months bring.
pub fn amount(usual: u32, soak: u32) -> u32 {
    if std::env::var_os("SIGNALBUS_SOAK").is_some() { soak } else { usual }
}

/// Makes one test for each database from a function of a `Database`.
#[macro_export]
macro_rules! on_each_database {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => { $(
        mod $name {
            use $crate::harness::database::Database;
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() { super::cases::$name(Database::sqlite().await).await }
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() { super::cases::$name(Database::postgres().await).await }
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread")]
            async fn mariadb() { super::cases::$name(Database::mariadb().await).await }
        }
    )* };
}
