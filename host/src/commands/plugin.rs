//! The commands of `plugin`: those for plugin authors, and those that change a running relay.
//!
//! Each is in a module of its own; here is only what they share.

#[cfg(feature = "author")]
pub(crate) mod build;
#[cfg(feature = "author")]
pub(crate) mod inspect;
#[cfg(feature = "author")]
pub(crate) mod new;
#[cfg(feature = "author")]
pub(crate) mod replay;
#[cfg(feature = "admin")]
pub(crate) mod swap;
#[cfg(feature = "author")]
pub(crate) mod test;

#[cfg(feature = "author")]
use signalbus_plugin::cache_folder;
#[cfg(feature = "author")]
use signalbus_plugin::{Engine, LoadError};

#[cfg(feature = "author")]
use super::{Exit, Failure};

#[cfg(feature = "author")]
fn engine() -> Result<Engine, Failure> {
    Engine::new(cache_folder(), super::compiler()).map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}

#[cfg(feature = "author")]
impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Formats a number of bytes for humans.
#[cfg(feature = "author")]
fn size(bytes: usize) -> String {
    const UNITS: [(f64, &str); 3] = [(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB")];
    #[expect(clippy::cast_precision_loss, reason = "rounded for humans anyway")]
    let amount = bytes as f64;
    let unit = UNITS.iter().find(|(factor, _)| amount >= *factor);
    unit.map_or_else(|| format!("{bytes} bytes"), |(factor, unit)| format!("{:.1} {unit}", amount / factor))
}
