//! Drops Kafka producers on threads of their own, and before the process exits.
//!
//! A producer must not outlive `main`: OpenSSL's exit handlers free memory that its threads may still
//! use. `kafka` keeps its producers in a [`DropInThread`].

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static COUNT: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A value that takes long to drop, and is dropped on a thread of its own.
pub(super) struct DropInThread<T: Send + 'static>(Option<Counted<T>>);

/// The fields are dropped in this order.
struct Counted<T>(T, Count);

struct Count;

impl<T: Send + 'static> DropInThread<T> {
    pub(super) fn new(inner: T) -> Self {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Some(Counted(inner, Count)))
    }

    /// Returns the value; `None` only while it is being dropped.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|counted| &counted.0)
    }
}

impl<T: Send + 'static> Drop for DropInThread<T> {
    fn drop(&mut self) {
        let dropped = self.0.take();
        // If no thread can be started, the value is dropped here.
        let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(dropped));
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

/// Waits until all values have been dropped, for at most three seconds.
pub(crate) fn end() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = ENDED.wait_timeout_while(count, PATIENCE, |count| *count > 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_waits_for_drops() {
        struct Slow(std::sync::mpsc::Sender<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(50));
                self.0.send(()).unwrap();
            }
        }
        let (ended, seen) = std::sync::mpsc::channel();
        drop(DropInThread::new(Slow(ended)));
        assert!(seen.try_recv().is_err(), "the drop takes time");
        end();
        assert!(seen.try_recv().is_ok());
    }
}
