//! The relay that runs: it sends by itself, is changed while it runs, and drains when told to.

mod harness;

#[path = "run/admin.rs"]
mod admin;
#[path = "run/autoflush.rs"]
mod autoflush;
#[path = "run/drain.rs"]
mod drain;
#[path = "run/faults.rs"]
mod faults;
#[path = "run/many.rs"]
mod many;
#[path = "run/reload.rs"]
mod reload;
#[path = "run/supervised.rs"]
mod supervised;
#[path = "run/swap.rs"]
mod swap;
