//! Connections to the admin listener.
//!
//! Limited in number and lifetime: clients must never exhaust the relay. Next: the router in `admin`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::exporter::Meters;
use crate::Live;

/// Maximum number of connections; further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// Time limit for receiving a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum lifetime of a connection.
const MAX_LIFETIME: Duration = Duration::from_secs(300);

/// A bound socket that does not answer requests yet.
pub struct Listener(TcpListener);

impl Listener {
    /// Binds to an address.
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Returns the bound address, with the actual port if 0 was requested.
    ///
    /// # Errors
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves requests until the future is dropped.
    pub async fn serve(self, live: Arc<Live>, meters: Meters, token: Option<String>) {
        let router = super::router(live, meters, token.as_deref());
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.0.accept().await else {
                // Usually out of file handles, which passes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // A client that hangs up is not an error.
                let _ = tokio::time::timeout(MAX_LIFETIME, connection).await;
                drop(permit);
            });
        }
    }
}
