//! Plugins in every language: conformance, load, compatibility, order, crashes, wrong answers, and the authors' commands.

mod answers;
mod authors;
mod compatibility;
mod conformance;
mod load;
mod order;
mod row_by_row;
mod traps;

use std::path::PathBuf;

/// Returns the sample plugin in a language, as `make plugins` builds it.
fn sample(language: &str) -> PathBuf {
    let file = crate::harness::target().join(format!("plugins/{language}.wasm"));
    assert!(file.exists(), "plugin in {language} not found: run `make plugins` first");
    file.canonicalize().unwrap()
}

/// Defines one test per language from a function with this name.
macro_rules! in_each_language {
    ($name:ident: $($language:ident),*) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $language() { super::$name(stringify!($language)).await })*
        }
    };
}
use in_each_language;
