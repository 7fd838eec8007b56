//! `run`: starts the relay, reports its state to systemd, and drains it when told to stop.
//!
//! What the relay does meanwhile is in `signalbus_relay::Live`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, compiler, read_config, stop_on_signals};
use signalbus_relay::Live;
use signalbus_relay::config::SignalConfig;
use signalbus_telemetry as telemetry;

pub(crate) async fn run(path: &Path, grace: Duration) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let stop = stop_on_signals()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let live = Live::new(path, config.clone(), compiler(), stop.clone())?;
    let listen = listener::start(&config, &live).await?;
    live.start().await?;
    let names: Vec<&str> = config.signals.iter().filter(|signal| signal.autoflush).map(SignalConfig::name).collect();
    telemetry::running(&names, listen);
    tell_supervisor(&[NotifyState::Ready]);
    attend(&live, &mut hangup, &stop).await;
    tell_supervisor(&[NotifyState::Stopping]);
    if live.drain(grace).await {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::Failed, format!("calls in flight did not finish within {grace:?}; their signals will be sent again")))
}

#[cfg(feature = "admin")]
mod listener {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use signalbus_relay::Live;
    use signalbus_relay::admin::{Listener, Meters};
    use signalbus_relay::config::Config;

    use super::{Exit, Failure};

    /// Starts the metrics and, if configured, the admin listener.
    pub(super) async fn start(config: &Config, live: &Arc<Live>) -> Result<Option<SocketAddr>, Failure> {
        let meters = Meters::start().map_err(|error| Failure::new(Exit::Failed, error))?;
        let Some(address) = config.admin.listen else { return Ok(None) };
        let taken =
            |error| Failure::new(Exit::Failed, format!("admin listener on {address}: {error}; choose another `admin.listen`"));
        let listener = Listener::bind(address).await.map_err(taken)?;
        let address = listener.address()?;
        tokio::spawn(listener.serve(live.clone(), meters, config.admin.token.clone()));
        Ok(Some(address))
    }
}

#[cfg(not(feature = "admin"))]
mod listener {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use signalbus_relay::Live;
    use signalbus_relay::config::Config;

    use super::{Exit, Failure};

    #[expect(clippy::unused_async, reason = "same signature as with the feature")]
    pub(super) async fn start(config: &Config, _: &Arc<Live>) -> Result<Option<SocketAddr>, Failure> {
        let without =
            "this binary was built without the admin listener: remove `admin.listen`, or build with the Cargo feature \"admin\"";
        config.admin.listen.map_or(Ok(None), |_| Err(Failure::new(Exit::Configuration, without)))
    }
}

/// Reloads on SIGHUP and notifies systemd's watchdog, until told to stop.
async fn attend(live: &Arc<Live>, hangup: &mut Signal, stop: &CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let beat = watchdog.map_or(Duration::from_secs(3600), |limit| limit / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => {
                // A reload waits for batches in flight; the loop must not.
                tokio::spawn(reload(live.clone()));
            }
            () = tokio::time::sleep(beat) => {
                if watchdog.is_some() {
                    tell_supervisor(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

/// Reloads the configuration. Problems are logged, and leave the running one in place.
async fn reload(live: Arc<Live>) {
    let reloading = NotifyState::monotonic_usec_now().ok();
    tell_supervisor(&reloading.map_or(vec![], |now| vec![NotifyState::Reloading, now]));
    let _ = live.reload().await;
    tell_supervisor(&[NotifyState::Ready]);
}

/// Notifies systemd, if it runs this process.
fn tell_supervisor(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
