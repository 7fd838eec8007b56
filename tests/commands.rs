//! The commands, from the shell, with real plugins.

mod harness;
