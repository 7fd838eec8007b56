//! For authors of plugins: projects in every language, components made of modules, and trials of a
//! plugin without a database or a bus.
//!
//! The relay never needs this crate; the commands of `signalbus plugin` do.
#![forbid(unsafe_code)]

pub mod component;
pub mod language;
pub mod templates;
pub mod trial;
