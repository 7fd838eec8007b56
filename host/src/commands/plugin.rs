//! The commands of `plugin`: for authors, and for the relay that runs.

pub(crate) mod build;
pub(crate) mod inspect;
pub(crate) mod language;
pub(crate) mod new;
pub(crate) mod replay;
pub(crate) mod swap;
pub(crate) mod test;

use crate::plugin::{Engine, LoadError};
use crate::relay::cache_folder;

use super::{Exit, Failure};

fn engine() -> Result<Engine, Failure> {
    Engine::new(cache_folder()).map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Bytes, for people.
fn size(bytes: usize) -> String {
    const UNITS: [(f64, &str); 3] = [(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB")];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let amount = bytes as f64;
    let unit = UNITS.iter().find(|(factor, _)| amount >= *factor);
    unit.map_or_else(|| format!("{bytes} bytes"), |(factor, unit)| format!("{:.1} {unit}", amount / factor))
}
