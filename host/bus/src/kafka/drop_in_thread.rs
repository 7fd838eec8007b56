//! Producers end on threads of their own, and before the process does: what OpenSSL tears down at
//! the exit, their threads may still be using.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static COUNT: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Something whose end takes a while, which nobody needs to wait for.
pub(super) struct DropInThread<T: Send + 'static>(Option<Counted<T>>);

/// The fields end in this order.
struct Counted<T>(T, Count);

struct Count;

impl<T: Send + 'static> DropInThread<T> {
    pub(super) fn new(inner: T) -> Self {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Some(Counted(inner, Count)))
    }

    /// It is there until it is dropped.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|counted| &counted.0)
    }
}

impl<T: Send + 'static> Drop for DropInThread<T> {
    fn drop(&mut self) {
        let ending = self.0.take();
        // Without a thread it ends here.
        let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(ending));
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

/// Waits until all have ended, for a limited time.
pub(crate) fn end() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = ENDED.wait_timeout_while(count, PATIENCE, |count| *count > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_waited_for() {
        struct Slow(std::sync::mpsc::Sender<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(50));
                self.0.send(()).unwrap();
            }
        }
        let (ended, seen) = std::sync::mpsc::channel();
        drop(DropInThread::new(Slow(ended)));
        assert!(seen.try_recv().is_err(), "dropping it takes time");
        end();
        assert!(seen.try_recv().is_ok());
    }
}
