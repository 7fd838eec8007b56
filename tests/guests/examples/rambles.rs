//! Answers a reason of `bytes` bytes (30 MiB) for each signal: a rejection, or what the setting `how` says:
//! `retry`, `unavailable`, `misconfigured`. All reasons are one text: the guest itself holds it once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

use exports::signalbus::plugin::bulk_sender::{Guest, Outage, Outcome, Signal, SignalType};
use signalbus::plugin::config::get;
use signalbus::plugin::types::Retry;

wit_bindgen::generate!({
    path: "../../wit",
    world: "bulk-sender-plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
});

/// Never frees: the bindings free each reason of an answer.
struct Keeps;

unsafe impl GlobalAlloc for Keeps {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static KEEPS: Keeps = Keeps;

struct Plugin;

fn reason() -> String {
    static TEXT: OnceLock<&'static str> = OnceLock::new();
    let bytes = || get("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(30 << 20);
    let text = TEXT.get_or_init(|| "ramble ".repeat(bytes() / 7).leak());
    unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), text.len(), text.len()) }
}

fn retry() -> Retry {
    Retry { reason: reason(), after_ms: None }
}

impl Guest for Plugin {
    fn send_signalbus_messages(_: SignalType, signals: Vec<Signal>) -> Result<Vec<Outcome>, Outage> {
        match get("how").as_deref() {
            Some("unavailable") => Err(Outage::Unavailable(retry())),
            Some("misconfigured") => Err(Outage::Misconfigured(reason())),
            Some("retry") => Ok(signals.iter().map(|_| Outcome::Retry(retry())).collect()),
            _ => Ok(signals.iter().map(|_| Outcome::Reject(reason())).collect()),
        }
    }
}

export!(Plugin);
