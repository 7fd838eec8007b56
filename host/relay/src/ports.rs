//! What the loops ask of the outbox and of a plugin: little enough for a test to answer in their place.
//!
//! Decides nothing. Next: `flusher`, `runner` and `watcher`, which ask.

use futures::future::BoxFuture;

use signalbus_core::settlement::Settlement;
use signalbus_core::signal::SignalType;
use signalbus_outbox::{Ahead, Batch, Claimed, Error, Outbox, Settled, SignalTable, Watch, Worker};
use signalbus_plugin::Generations;

/// The signals of one type, for flushers to claim.
pub trait Claims: Send + Sync + 'static {
    fn signal_type(&self) -> &SignalType;
    /// Returns a session for one worker.
    fn session(&self) -> Box<dyn ClaimSession + '_>;
    /// Makes the next claim look from the start: a settlement has left signals behind.
    fn rescan(&self) -> BoxFuture<'_, ()>;
}

/// A worker's session; it has one claim at a time. Errors and results are those of [`Worker`].
pub trait ClaimSession: Send {
    fn claim<'a>(&'a mut self, limit: usize, boundary: Option<&'a str>) -> BoxFuture<'a, Result<Claimed, Error>>;
    /// Sets how many batches the next claims cover, if their type has an order.
    fn cover(&mut self, batches: usize);
    /// What [`claim_ahead`](Self::claim_ahead) has to know of a claim.
    fn ahead(&self, _: &Batch) -> Option<Ahead> {
        None
    }
    /// Claims what comes next in the order.
    fn claim_ahead<'a>(
        &'a mut self,
        _: Ahead,
        _limit: usize,
        _boundary: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Batch>, Error>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Gives back what was claimed ahead.
    fn give_back<'a>(&'a mut self, _: &'a Batch) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn renew<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<bool, Error>>;
    fn settle<'a>(&'a mut self, batch: &'a Batch, settlement: &'a Settlement) -> BoxFuture<'a, Result<Settled, Error>>;
    /// The worker ends before everything that it has claimed is read: gives it back.
    fn close(&mut self) -> BoxFuture<'_, Result<(), Error>>;
}

/// Where the watcher learns which signal types have something due; see [`Outbox::look`] and [`Outbox::watch`].
pub(super) trait Watched: Send + Sync + 'static {
    type Table: Claims;
    fn look<'a>(&'a self, views: &'a [(&'a Self::Table, bool)]) -> BoxFuture<'a, Result<Vec<Option<bool>>, Error>>;
    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>>;
}

/// A plugin that may go back to its previous generation by itself, and may have to wait for its share.
pub(super) trait LoadedPlugin: Send + Sync + 'static {
    /// Returns whether it did so since the last call.
    fn take_rolled_back(&self) -> bool;
    /// Returns what it has been waiting for, if that is long.
    fn shortage(&self) -> Option<String>;
}

impl Claims for SignalTable {
    fn signal_type(&self) -> &SignalType {
        self.signal_type()
    }

    fn session(&self) -> Box<dyn ClaimSession + '_> {
        Box::new(self.session())
    }

    fn rescan(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.rescan())
    }
}

impl ClaimSession for Worker<'_> {
    fn ahead(&self, batch: &Batch) -> Option<Ahead> {
        self.ahead(batch)
    }

    fn claim_ahead<'a>(
        &'a mut self,
        ahead: Ahead,
        limit: usize,
        boundary: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Batch>, Error>> {
        Box::pin(self.claim_ahead(ahead, limit, boundary))
    }

    fn give_back<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.give_back(batch))
    }

    fn claim<'a>(&'a mut self, limit: usize, boundary: Option<&'a str>) -> BoxFuture<'a, Result<Claimed, Error>> {
        Box::pin(self.claim(limit, boundary))
    }

    fn cover(&mut self, batches: usize) {
        self.cover(batches);
    }

    fn renew<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.renew(batch))
    }

    fn settle<'a>(&'a mut self, batch: &'a Batch, settlement: &'a Settlement) -> BoxFuture<'a, Result<Settled, Error>> {
        Box::pin(self.settle(batch, settlement))
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.close())
    }
}

impl Watched for Outbox {
    type Table = SignalTable;

    fn look<'a>(&'a self, views: &'a [(&'a SignalTable, bool)]) -> BoxFuture<'a, Result<Vec<Option<bool>>, Error>> {
        Box::pin(self.look(views))
    }

    fn watch(&self) -> BoxFuture<'_, Result<Option<Box<dyn Watch>>, Error>> {
        Box::pin(self.watch())
    }
}

impl LoadedPlugin for Generations {
    fn take_rolled_back(&self) -> bool {
        self.take_rolled_back()
    }

    fn shortage(&self) -> Option<String> {
        self.shortage()
    }
}
