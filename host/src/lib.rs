//! SignalBus: the transactional outbox relay whose senders are Wasm components.

pub mod backoff;
pub mod plugin;
pub mod settlement;
pub mod signal;
