//! Driving a call: a heavy one computes only in its turn, and on a thread that may block.
//!
//! Must never delay the other tasks of the runtime. Next: `limits`, which tells what is heavy.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::limits::{Deadline, Load, Processors};

/// Drives a call to its end. Once the call is heavy, each tick waits for its turn and runs on a
/// blocking thread, so that it does not delay the runtime's other tasks.
pub(super) async fn drive<T>(call: impl Future<Output = T>, load: &Load, processors: &Processors) -> T {
    let mut call = pin!(call);
    let spare = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    loop {
        let mut turn = None;
        if load.is_heavy() || processors.is_spent() {
            let _wait = load.wait();
            turn = processors.turn().await;
        }
        let begun = Instant::now();
        let polled = poll_fn(|context| {
            load.resume();
            Poll::Ready(match spare && turn.is_some() {
                true => block_in_place(|| call.as_mut().poll(context)),
                false => call.as_mut().poll(context),
            })
        });
        let answer = polled.await;
        if turn.is_none() {
            processors.spend(begun.elapsed());
        }
        if let Poll::Ready(answer) = answer {
            return answer;
        }
        drop(turn);
        until_woken().await;
    }
}

/// Waits until the time of a call is over.
pub(super) async fn passed(deadline: &Deadline) {
    while !deadline.left().is_zero() {
        tokio::time::sleep(deadline.left()).await;
    }
}

/// Waits until the future polled last in this task wakes it.
async fn until_woken() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
