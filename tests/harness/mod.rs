//! Shared by the end-to-end tests: real servers, real guests, the real command.
#![allow(dead_code, reason = "each test binary uses a part of it")]

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

/// The component of a test guest, built by `make guests`.
pub fn guest(name: &str) -> PathBuf {
    let folder = target().join("wasm32-wasip2/guest");
    let files = [folder.join(format!("examples/{name}.wasm")), folder.join(format!("{name}.wasm"))];
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("guest \"{name}\" not found: run `make guests` first"))
}

/// The build folder.
pub fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// The amount of work in a test: the usual one, or with `make soak` that of months of use.
pub fn amount(usual: u32, soak: u32) -> u32 {
    if std::env::var_os("SIGNALBUS_SOAK").is_some() { soak } else { usual }
}

/// Turns functions of a `Database` into one test for each database.
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
