//! Takes `resources` (100000) pollables of the relay's clock and keeps them, then sends.

use signalbus_guest::{BulkResult, Outcome, Signal, plugin};
use signalbus_test_guests::setting;

mod clock {
    wit_bindgen::generate!({
        inline: "
            package test:hoards;
            world hoards { import wasi:clocks/monotonic-clock@0.2.0; }
            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable { ready: func() -> bool; block: func(); }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }
            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        ",
        world: "test:hoards/hoards",
        generate_all,
    });
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let resources = setting("resources").unwrap_or(100_000);
    let hoard: Vec<_> = (0..resources).map(clock::wasi::clocks::monotonic_clock::subscribe_duration).collect();
    assert_eq!(hoard.len() as u64, resources);
    Ok(vec![Outcome::Sent; signals.len()])
}

plugin!(bulk send_all);
