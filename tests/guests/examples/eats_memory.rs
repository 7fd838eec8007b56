//! Allocates memory, a mebibyte at a time, until it gets no more.

use signalbus_guest::{BulkResult, Signal, plugin};
use std::hint::black_box;

fn send_all(_: &[Signal]) -> BulkResult {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}

plugin!(bulk send_all);
