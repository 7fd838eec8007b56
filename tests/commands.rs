//! The commands, run from the shell with real plugins.

mod check;
mod flush;
mod pages;
mod project;
mod secrets;
mod statuses;
mod stop;
mod terminal;
