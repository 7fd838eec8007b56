//! Sends every signal without reading it, for benchmarks of the minimum cost of a call.
//!
//! Implements the canonical ABI by hand: the arguments are placed in an arena, nothing is lifted or freed
//! one by one, and the arena is emptied after each call.

#![allow(dead_code, reason = "the bindings only describe the component")]

wit_bindgen::generate!({ path: "../../wit", world: "bulk-sender-plugin" });

#[cfg(target_family = "wasm")]
mod by_hand {
    use std::arch::wasm32::memory_grow;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Size of an outcome, and the offset of the list in the answer, in the canonical ABI.
    const OUTCOME: usize = 32;
    const LIST: usize = 8;
    const PAGE: usize = 65_536;

    static START: AtomicUsize = AtomicUsize::new(0);
    static TOP: AtomicUsize = AtomicUsize::new(0);
    static END: AtomicUsize = AtomicUsize::new(0);

    fn allocate(align: usize, size: usize) -> usize {
        let mut at = TOP.load(Relaxed).next_multiple_of(align);
        if at + size > END.load(Relaxed) {
            let pages = size.div_ceil(PAGE).max(64);
            let new = memory_grow::<0>(pages);
            assert!(new != usize::MAX, "out of memory");
            if new * PAGE != END.load(Relaxed) {
                START.store(new * PAGE, Relaxed);
                at = new * PAGE;
            }
            END.store((new + pages) * PAGE, Relaxed);
        }
        TOP.store(at + size, Relaxed);
        at
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn cabi_realloc(old: usize, old_size: usize, align: usize, size: usize) -> usize {
        let new = allocate(align, size);
        unsafe { std::ptr::copy_nonoverlapping(old as *const u8, new as *mut u8, old_size.min(size)) };
        new
    }

    /// The list of signals is the last argument; the rest is the signal type.
    #[unsafe(export_name = "signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages")]
    unsafe extern "C" fn send(_: usize, _: usize, _: usize, _: usize, _: usize, _: usize, _: usize, signals: usize) -> usize {
        let answer = allocate(8, 40);
        let outcomes = allocate(8, signals * OUTCOME);
        unsafe {
            *(answer as *mut u8) = 0; // ok
            *((answer + LIST) as *mut usize) = outcomes;
            *((answer + LIST + 4) as *mut usize) = signals;
            for signal in 0..signals {
                *((outcomes + signal * OUTCOME) as *mut u8) = 0; // sent
            }
        }
        answer
    }

    #[unsafe(export_name = "cabi_post_signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages")]
    extern "C" fn forget(_: usize) {
        TOP.store(START.load(Relaxed), Relaxed);
    }
}
