//! The outbox on each database: one suite, three adapters, real servers.

mod harness;

#[path = "outbox/claims.rs"]
mod claims;
#[path = "outbox/dead.rs"]
mod dead;
#[path = "outbox/deferrals.rs"]
mod deferrals;
#[path = "outbox/faults.rs"]
mod faults;
#[path = "outbox/keys.rs"]
mod keys;
#[path = "outbox/late.rs"]
mod late;
#[path = "outbox/names.rs"]
mod names;
#[path = "outbox/order.rs"]
mod order;
#[path = "outbox/outages.rs"]
mod outages;
#[path = "outbox/schedules.rs"]
mod schedules;
#[path = "outbox/takeovers.rs"]
mod takeovers;
