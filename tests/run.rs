//! The relay that runs: it sends by itself, is changed while it runs, and drains when told to.

mod admin;
mod autoflush;
mod drain;
mod faults;
mod many;
mod reload;
mod supervised;
mod swap;
