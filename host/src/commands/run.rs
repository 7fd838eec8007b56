//! `run`: the relay, until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, read_config, stop_on_signals};
use signalbus_relay::Live;
use signalbus_relay::config::SignalConfig;
use signalbus_telemetry as telemetry;

pub(crate) async fn run(path: &Path, grace: Duration) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let stop = stop_on_signals()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let live = Live::new(path, config.clone(), stop.clone())?;
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
    Err(Failure::new(Exit::Failed, format!("what was in flight did not end within {grace:?}; it will be sent again")))
}

#[cfg(feature = "admin")]
mod listener {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use signalbus_relay::Live;
    use signalbus_relay::admin::{Listener, Meters};
    use signalbus_relay::config::Config;

    use super::{Exit, Failure};

    /// Starts the admin listener, where one is configured, and the counting.
    pub(super) async fn start(config: &Config, live: &Arc<Live>) -> Result<Option<SocketAddr>, Failure> {
        let meters = Meters::start().map_err(|error| Failure::new(Exit::Failed, error))?;
        let Some(address) = config.admin.listen else { return Ok(None) };
        let taken =
            |error| Failure::new(Exit::Failed, format!("admin listener on {address}: {error}; name another `admin.listen`"));
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

    #[expect(clippy::unused_async, reason = "it stands in for the real one")]
    pub(super) async fn start(config: &Config, _: &Arc<Live>) -> Result<Option<SocketAddr>, Failure> {
        let without = "this binary was built without the admin listener: remove `admin.listen`, or build it with the Cargo feature \"admin\"";
        config.admin.listen.map_or(Ok(None), |_| Err(Failure::new(Exit::Configuration, without)))
    }
}

/// Reloads when told to, and keeps systemd's watchdog calm.
async fn attend(live: &Arc<Live>, hangup: &mut Signal, stop: &CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let beat = watchdog.map_or(Duration::from_secs(3600), |limit| limit / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => {
                // It waits for batches in flight: nothing else should.
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

/// Faults are told in the log; the running configuration stays then.
async fn reload(live: Arc<Live>) {
    let reloading = NotifyState::monotonic_usec_now().ok();
    tell_supervisor(&reloading.map_or(vec![], |now| vec![NotifyState::Reloading, now]));
    let _ = live.reload().await;
    tell_supervisor(&[NotifyState::Ready]);
}

/// Nobody may be listening: then there is no systemd.
fn tell_supervisor(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
