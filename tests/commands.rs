//! The commands, from the shell, with real plugins.

mod harness;

#[path = "commands/check.rs"]
mod check;
#[path = "commands/flush.rs"]
mod flush;
#[path = "commands/project.rs"]
mod project;
#[path = "commands/secrets.rs"]
mod secrets;
#[path = "commands/statuses.rs"]
mod statuses;
#[path = "commands/stop.rs"]
mod stop;
#[path = "commands/terminal.rs"]
mod terminal;
