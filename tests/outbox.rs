//! The outbox on every database: one suite, three adapters, real servers.

mod ahead;
mod broken;
mod claims;
mod dead;
mod deferrals;
mod faults;
mod identity;
mod keys;
mod late;
mod names;
mod order;
mod outages;
mod resistance;
mod schedules;
mod sizes;
mod takeovers;
mod upgrade;
mod urls;
mod views;
