//! Connections to the admin listener: few, and none for ever.

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

/// Connections at once; more have to wait.
const CONNECTIONS: usize = 64;
/// The longest that a request's head may take to arrive, and that a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);
/// After so long a connection is closed, whatever it does.
const LONGEST: Duration = Duration::from_secs(300);

/// A socket that listens; nobody is answered yet.
pub struct Listener(TcpListener);

impl Listener {
    /// # Errors
    /// The address is taken, or not this machine's.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Where it listens: with its port, where any was asked for.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve(self, live: Arc<Live>, meters: Meters, token: Option<String>) {
        let router = super::router(live, meters, token.as_deref());
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.0.accept().await else {
                // No file handles are left, as a rule: that passes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // That somebody hangs up is no fault.
                let _ = tokio::time::timeout(LONGEST, connection).await;
                drop(place);
            });
        }
    }
}
