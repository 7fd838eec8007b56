//! The bytes that the relay holds for the HTTP requests of an instance.
//!
//! A body must never be held beyond its budget: what does not fit waits, as it does for a slow server. `http` uses
//! one budget for what is sent, and one for what is received.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

/// Bytes that may be held, of all bodies in one direction together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    all: u32,
}

impl Budget {
    /// The least budget, with which everything still works.
    const LEAST: usize = 128 << 10;
    /// A writer that has to wait does so for this many bytes.
    const PART: u32 = 16 << 10;

    pub(super) fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes.max(Self::LEAST)).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Takes this many bytes, or as many as are free.
    fn take_up_to(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(self.free.available_permits());
        self.take(bytes)
    }

    /// Takes this many bytes, if they are free.
    pub(super) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// Waits until the bytes are free, and holds them until the returned ones are dropped.
    pub(super) async fn hold(&self, bytes: Bytes) -> Bytes {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.all);
        match self.free.clone().acquire_many_owned(count).await {
            Ok(taken) => held(bytes, taken),
            Err(_) => bytes,
        }
    }
}

/// Bytes that count as held until the last copy is dropped.
struct Held {
    bytes: Bytes,
    _taken: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn held(bytes: Bytes, taken: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held { bytes, _taken: taken })
}

/// The stream of an outgoing body: takes only what fits into the budget.
pub(super) struct Budgeted {
    inner: DynOutputStream,
    budget: Budget,
    /// What the guest may write now.
    reserved: Option<OwnedSemaphorePermit>,
}

impl Budgeted {
    pub(super) fn new(inner: DynOutputStream, budget: Budget) -> Self {
        Self { inner, budget, reserved: None }
    }

    fn reserved(&self) -> usize {
        self.reserved.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[async_trait]
impl Pollable for Budgeted {
    async fn ready(&mut self) {
        self.inner.ready().await;
        if self.reserved() == 0 {
            self.reserved = self.budget.free.clone().acquire_many_owned(Budget::PART).await.ok();
        }
    }
}

#[async_trait]
impl OutputStream for Budgeted {
    fn check_write(&mut self) -> StreamResult<usize> {
        let most = self.inner.check_write()?;
        if most > self.reserved() {
            // Whatever is reserved is given back first, so that the whole is in one piece.
            self.reserved = None;
            self.reserved = self.budget.take_up_to(most).filter(|taken| taken.num_permits() > 0);
        }
        Ok(most.min(self.reserved()))
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut reserved = self.reserved.take();
        let Some(taken) = reserved.as_mut().and_then(|reserved| reserved.split(bytes.len())) else {
            return Err(StreamError::Trap(wasmtime::format_err!("a body was written beyond what its stream takes")));
        };
        self.inner.write(held(bytes, taken))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}
