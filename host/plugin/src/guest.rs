//! The state of a store, and the host side of the contract's interfaces.
//!
//! Whatever a guest asks for is checked against its grants and counted against its limits. HTTP
//! continues in `http`, sockets in `tcp`, publishing in `producer`.

use std::sync::Arc;
use std::time::Duration;

use tracing::Level;
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, async_trait};

use super::http::Http;
use super::limits::{Deadline, Limits, Load, Meter};
use super::logs::{PluginLogs, Stream};
use super::own_ids::OwnIds;
use super::plugin_context::PluginContext;
use super::tcp::{Sockets, View};
use super::wit::signalbus::plugin::{config, log, ordered_producer, producer, types};
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};
use signalbus_core::text;

/// The state of a store.
pub(super) struct State {
    wasi: WasiCtx,
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "holds nothing"))]
    http: Http,
    sockets: Sockets,
    table: ResourceTable,
    meter: Meter,
    context: PluginContext,
    logs: PluginLogs,
    /// Whether a message that the guest published has no outcome yet.
    unconfirmed: bool,
    /// Whether a bus had an outage while the guest published in order in the present call.
    met_outage: bool,
    /// When a bus must have answered, so that the guest can.
    deadline: Option<Arc<Deadline>>,
    /// The ids that messages of the present call may have.
    ids: OwnIds,
}

/// Maximum number of resources, such as streams and pollables, per instance.
pub(super) const RESOURCES: usize = 1000;

/// Creates a store for one instance, within its limits. It must be armed before the guest runs.
pub(super) fn store(engine: &wasmtime::Engine, limits: &Limits, context: PluginContext, logs: PluginLogs) -> Store<State> {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES);
    let sockets = Sockets::new(context.clone());
    let mut wasi = WasiCtx::builder();
    wasi.stdout(Pipe { logs: logs.clone(), stream: Stream::Output }).stderr(Pipe { logs: logs.clone(), stream: Stream::Error });
    sockets.open(&mut wasi);
    let meter = Meter::new(limits.memory);
    let state = State {
        wasi: wasi.build(),
        http: Http::new(context.clone(), limits.memory),
        sockets,
        table,
        meter,
        context,
        logs,
        unconfirmed: false,
        met_outage: false,
        deadline: None,
        ids: OwnIds::default(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.meter);
    // This counts only the bytes passed to the host: more than a guest's memory can be passed only by
    // passing the same bytes again and again.
    store.set_hostcall_fuel(limits.memory);
    store.set_max_component_handles(RESOURCES);
    store
}

/// Starts the deadline: the guest yields to the runtime at every tick, and is interrupted after
/// `timeout`, of which what it waits for a processor is no part.
pub(super) fn arm(store: &mut Store<State>, timeout: Duration, load: &Arc<Load>) {
    let load = load.clone();
    let deadline = Arc::new(Deadline::new(timeout, &load));
    store.data_mut().deadline = Some(deadline.clone());
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        load.tick();
        Ok(if deadline.left().is_zero() {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
        })
    });
}

#[cfg(feature = "http")]
impl State {
    /// Returns the budget for the bodies of requests.
    pub(super) fn http_budget(&self) -> super::budget::Budget {
        self.http.budget()
    }
}

impl State {
    /// Notes the signals of the call that begins.
    pub(super) fn enter(&mut self, signal_type: &types::SignalType<'_>, signals: &[types::Signal<'_>]) {
        self.met_outage = false;
        if !self.context.connections.is_empty() {
            self.ids = OwnIds::of_call(signal_type, signals, self.context.grants.setting("id"));
        }
    }

    /// Returns the bytes that the instance holds.
    pub(super) fn memory(&self) -> usize {
        self.meter.used()
    }

    /// Returns whether a bus had an outage in the midst of runs.
    pub(super) fn met_outage(&self) -> bool {
        self.met_outage
    }

    /// Returns whether a message that the guest published last has no outcome yet.
    pub(super) fn unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// Notes whether a message that the guest published has no outcome.
    pub(super) fn set_unconfirmed(&mut self, unconfirmed: bool) {
        self.unconfirmed = unconfirmed;
    }

    /// Notes that a bus had an outage while the guest published in order.
    pub(super) fn note_outage(&mut self) {
        self.met_outage = true;
    }

    /// Returns how many bytes the guest may pass in one call.
    pub(super) fn most_passed(&self) -> usize {
        self.meter.limit()
    }

    /// Returns how long a call of the relay's functions may take.
    pub(super) fn left_for_calls(&self) -> Duration {
        self.deadline.as_ref().map_or(Duration::ZERO, |deadline| deadline.left_for_calls())
    }

    pub(super) fn context(&self) -> &PluginContext {
        &self.context
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[cfg(feature = "http")]
impl wasmtime_wasi_http::WasiHttpView for State {
    fn http(&mut self) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}

impl State {
    /// Returns the host side of sockets and name lookups.
    pub(super) fn tcp(&mut self) -> View<'_> {
        let sockets = WasiSocketsCtxView { ctx: self.wasi.sockets(), table: &mut self.table };
        View { sockets, own: &mut self.sockets }
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn enabled(&mut self, level: log::Level) -> wasmtime::Result<bool> {
        Ok(self.logs.keeps(level.into()))
    }

    fn emit(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.logs.record(level.into(), &message, &fields);
        Ok(())
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.context.grants.setting(&key).map(str::to_owned))
    }

    fn get_all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.context.grants.settings.clone())
    }

    fn get_secret(&mut self, mut key: String) -> wasmtime::Result<Option<String>> {
        let secret = self.context.grants.secret(&key);
        text::cut(&mut key, 256);
        let PluginContext { plugin, signal_type, .. } = &self.context;
        tracing::debug!(target: "plugin", %plugin, %signal_type, key, found = secret.is_some(), "secret read");
        Ok(secret.map(str::to_owned))
    }
}

/// Waits for a bus for so long.
async fn within<T>(left: Duration, published: impl Future<Output = Result<T, Outage>>) -> Result<T, Outage> {
    let late = || Outage::Unavailable { reason: "the bus did not answer in the time of the plugin's call".into(), after: None };
    tokio::time::timeout(left, published).await.unwrap_or_else(|_| Err(late()))
}

impl producer::Host for State {
    async fn publish(&mut self, messages: Vec<types::Message>) -> wasmtime::Result<Result<Vec<types::Outcome>, types::Outage>> {
        let messages = messages.into_iter().map(Message::from).collect();
        let published = self.context.connections.publish(messages, &self.context.signal_type, &self.ids);
        let verdict = within(self.left_for_calls(), published).await;
        self.unconfirmed = verdict.as_ref().is_ok_and(|outcomes| outcomes.contains(&Outcome::Held));
        Ok(verdict.map(|outcomes| outcomes.into_iter().map(Into::into).collect()).map_err(Into::into))
    }
}

impl ordered_producer::Host for State {
    async fn publish_in_order(
        &mut self,
        runs: Vec<Vec<types::Message>>,
    ) -> wasmtime::Result<Result<Vec<Vec<types::RunOutcome>>, types::Outage>> {
        let runs = runs.into_iter().map(|run| run.into_iter().map(Message::from).collect()).collect();
        let published = self.context.connections.publish_in_order(runs, &self.context.signal_type, &self.ids);
        let verdict = within(self.left_for_calls(), published).await;
        self.unconfirmed = verdict.as_ref().is_ok_and(|(runs, _)| runs.iter().any(|run| run.contains(&Outcome::Held)));
        self.met_outage |= verdict.as_ref().is_ok_and(|(_, outage)| outage.is_some());
        let lowered = |run: Vec<Outcome>| run.into_iter().map(Into::into).collect();
        Ok(verdict.map(|(runs, _)| runs.into_iter().map(lowered).collect()).map_err(Into::into))
    }
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Trace => Self::TRACE,
            log::Level::Debug => Self::DEBUG,
            log::Level::Info => Self::INFO,
            log::Level::Warn => Self::WARN,
            log::Level::Error => Self::ERROR,
        }
    }
}

/// A standard stream that writes to the logs; always ready, never full.
#[derive(Clone)]
struct Pipe {
    logs: PluginLogs,
    stream: Stream,
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI preview 3 uses it, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.logs.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}
