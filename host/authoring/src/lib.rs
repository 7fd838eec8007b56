//! Tools for plugin authors: project templates, builds in every language, component metadata, and
//! tests of a plugin without a database or a bus.
//!
//! The relay itself must not need this crate; only the commands of `signalbus plugin` use it.
#![forbid(unsafe_code)]

pub mod component;
pub mod language;
pub mod templates;
pub mod testing;
