//! The relay that runs: it sends by itself, is changed while it runs, and drains when told to.

mod harness;

#[path = "run/admin.rs"]
mod admin;
#[path = "run/autoflush.rs"]
mod autoflush;
#[path = "run/drain.rs"]
mod drain;
#[path = "run/reload.rs"]
mod reload;
#[path = "run/swap.rs"]
mod swap;
