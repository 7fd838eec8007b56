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
    let folder = target().join("wasm32-wasip2/plugin");
    let files = [folder.join(format!("examples/{name}.wasm")), folder.join(format!("{name}.wasm"))];
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("there is no guest \"{name}\": run `make guests` first"))
}

/// The folder that builds go to.
pub fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// The folder of the servers that `make servers` installs beside the system's.
pub fn servers() -> PathBuf {
    let folder = target().join("tools/servers");
    folder.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run `make servers` first", folder.display()))
}

/// How much of something a test does: the usual, or with `make soak` as much as months bring.
pub fn amount(usual: u32, soak: u32) -> u32 {
    if std::env::var_os("SIGNALBUS_SOAK").is_some() { soak } else { usual }
}

/// Makes one test for each database from a function of a `Database` in `cases`.
#[macro_export]
macro_rules! on_each_database {
    ($($cases:tt)*) => { $crate::on_databases!([sqlite postgres mariadb] $($cases)*); };
}

/// The same, and for newer versions of PostgreSQL.
#[macro_export]
macro_rules! on_each_version {
    ($($cases:tt)*) => { $crate::on_databases!([sqlite postgres postgres17 postgres18 mariadb] $($cases)*); };
}

/// The same, for these databases.
#[macro_export]
macro_rules! on_databases {
    (@ $case:ident $attributes:tt [$($database:ident)*]) => {
        $( $crate::on_databases!(@ $case $attributes $database); )*
    };
    (@ $case:ident [$(#[$attribute:meta])*] $database:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $database() { super::cases::$case(Database::$database().await).await }
    };
    ($databases:tt $($(#[$attribute:meta])* $case:ident),* $(,)?) => { $(
        mod $case {
            use $crate::harness::database::Database;
            $crate::on_databases!(@ $case [$(#[$attribute])*] $databases);
        }
    )* };
}
