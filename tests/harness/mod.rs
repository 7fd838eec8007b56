//! Shared by the end-to-end tests: real servers, real guests, the real command.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod bouncer;
pub mod broker;
pub mod bus;
pub mod command;
pub mod components;
pub mod database;
pub mod disk;
pub mod lane;
pub mod process;
pub mod proxy;
pub mod receiver;
#[cfg(feature = "redis")]
pub mod redis;
pub mod refusal;
pub mod relay;
pub mod runs;
pub mod server;
pub mod version1;
pub mod witness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. No promise: machines are shared, and a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How long to wait until the next look, after waiting since `begun`: a test that waits leaves the processor to the others.
pub fn pause(begun: Instant) -> Duration {
    (begun.elapsed() / 20).clamp(Duration::from_millis(5), Duration::from_millis(250))
}

/// The component of a test guest or of a ready-made plugin, built by `make guests ready-made`.
pub fn guest(name: &str) -> PathBuf {
    let folder = target().join("wasm32-wasip2");
    let places = [format!("guest/examples/{name}.wasm"), format!("guest/{name}.wasm"), format!("plugin/{name}.wasm")];
    let files = places.map(|place| folder.join(place));
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("guest \"{name}\" not found: run `make guests ready-made` first"))
}

/// The build folder.
pub fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// The folder of the servers that `make servers` installs beside the system's.
pub fn servers() -> PathBuf {
    let folder = target().join("tools/servers");
    folder.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run `make servers` first", folder.display()))
}

/// The amount of work in a test: the usual one, or with `make soak` that of months of use.
pub fn amount(usual: u32, soak: u32) -> u32 {
    if is_soak() { soak } else { usual }
}

/// Whether `make soak` runs, which takes its time.
pub fn is_soak() -> bool {
    std::env::var_os("SIGNALBUS_SOAK").is_some()
}

/// Turns functions of a `Database` in `cases` into one test for each database.
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
