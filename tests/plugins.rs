//! Plugins in every language: what they have to do, under load, for ever, and for their authors.

mod authors;
mod compatibility;
mod conformance;
mod load;
mod order;
mod traps;

use std::path::PathBuf;

/// The sample plugin in a language, as `make plugins` builds it.
fn sample(language: &str) -> PathBuf {
    let file = crate::harness::target().join(format!("plugins/{language}.wasm"));
    assert!(file.exists(), "there is no plugin in {language}: run `make plugins` first");
    file.canonicalize().unwrap()
}

/// Makes one test for each language from a function of its name.
macro_rules! in_each_language {
    ($name:ident: $($language:ident),*) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $language() { super::$name(stringify!($language)).await })*
        }
    };
}
use in_each_language;
