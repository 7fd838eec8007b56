//! The running relay: sends as signals arrive, is changed while it runs, and drains when stopped.

mod admin;
mod autoflush;
mod drain;
mod faults;
mod locks;
mod many;
mod reload;
mod supervised;
mod swap;
mod tables;
