//! Calls into a guest: the store and instance, the deadline, and the reason of a failure.
//!
//! An instance that trapped or timed out must never be entered again; its store is dropped. Which
//! signals go into which call is decided in `send`; what the guest may do meanwhile, in `guest`.

mod batch_calls;
mod drive;
mod failures;
mod outcomes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap, WasmBacktrace};

use super::backtrace::Backtrace;
use super::batch::{LoweredBatch, LoweredType};
use super::call_log::{Call, Failed};
use super::guest::{self, State};
use super::limits::{Deadline, Load};
use super::load::{Entry, Plugin};
use super::logs::PluginLogs;
use super::plugin_context::PluginContext;
use super::send::{Failure, SendStrategy};
use super::wit::signalbus::plugin::types as wit;
use super::{Sender, Sending};
use batch_calls::{BatchCalls, ExportedSender, LiveInstance};
use drive::{drive, passed};
use signalbus_core::signal::{Outcome, Signal, SignalType, Verdict};
use signalbus_shares::Share;
use signalbus_telemetry as telemetry;

impl Sender for Plugin {
    fn send<'a>(&'a self, signal_type: &'a SignalType, signals: &'a [Signal], stop: &'a CancellationToken) -> Sending<'a> {
        Box::pin(self.send_batch(signal_type, signals, stop))
    }
}

impl Plugin {
    /// Instantiates the plugin once, and drops the instance.
    pub(super) async fn try_instance(&self) -> Result<(), String> {
        let _room = self.room.take(self.slots).await;
        let none = SignalType { name: String::new(), columns: Vec::new(), attributes: Vec::new() };
        let context = CallContext::new(self, &none);
        let mut store = context.store();
        let instance = async { self.pre.instantiate_async(&mut store).await.map(drop) };
        context.in_time(instance).await.map_err(|failure| failure.reason)?;
        self.context.call_log.iter().for_each(|call_log| call_log.memory(store.data().memory()));
        Ok(())
    }

    /// Returns what its calls have been waiting for, if that is long.
    pub(super) fn shortage(&self) -> Option<String> {
        const LONG: Duration = Duration::from_secs(5);
        let waiting = |share: &Option<Arc<Share>>| share.as_ref().map(|share| share.waiting()).unwrap_or_default();
        let (room, turn) = (self.room.waiting(), self.processors.waiting());
        let (heads, publishing) = (waiting(&self.context.heads), waiting(&self.context.publishing));
        let short = |what: &str, time: Duration| (time > LONG).then(|| format!("it has waited {} s for {what}", time.as_secs()));
        short("room for an instance, which other plugins hold", room)
            .or_else(|| short("a processor, on which other plugins compute", turn))
            .or_else(|| short("HTTP responses that are awaited before its own", heads))
            .or_else(|| short("messages that are published before its own", publishing))
    }

    async fn send_batch(&self, signal_type: &SignalType, signals: &[Signal], stop: &CancellationToken) -> Verdict {
        // A send uses its instances one after the other, so room for one is enough.
        let begun = Instant::now();
        let Some(_room) = stop.run_until_cancelled(self.room.take(self.slots)).await else {
            // Nothing was tried.
            return Ok(vec![Outcome::Held; signals.len()]);
        };
        telemetry::waited(&self.context.signal_type, "room", begun.elapsed());
        let lowered = LoweredBatch::new(signals);
        let context = CallContext::new(self, signal_type);
        let patience = self.limits.patience();
        let started = Instant::now();
        let mut guests = BatchCalls {
            context,
            batch: signals,
            signals: &lowered.signals(),
            alive: None,
            met_outage: false,
            unattributed: None,
            started,
            stop,
            patience,
        };
        let strategy = SendStrategy {
            ordered: signal_type.is_ordered(),
            holds_dead: signal_type.attribute("on_dead") == Some("hold"),
            patience,
            room: self.limits.room(),
        };
        let verdict = strategy.send(signals, &mut guests).await;
        guests.report_unattributed().await;
        verdict
    }
}

/// State shared by all calls of one send.
struct CallContext<'a> {
    plugin: &'a Plugin,
    entry: &'a Entry,
    ordered: bool,
    lowered_type: LoweredType<'a>,
    logs: PluginLogs,
    load: Arc<Load>,
}

impl<'a> CallContext<'a> {
    fn new(plugin: &'a Plugin, signal_type: &'a SignalType) -> Self {
        let lowered_type = LoweredType::new(signal_type, &plugin.timeout_ms);
        let ordered = signal_type.is_ordered();
        let (entry, logs) = (plugin.entry(ordered), PluginLogs::new(plugin.context.clone()));
        Self { plugin, entry, ordered, lowered_type, logs, load: Arc::default() }
    }

    /// Calls the live instance, or a new one if there is none. A `sender` takes one signal, an `ordered-sender` runs of
    /// these lengths.
    async fn call(
        &self,
        alive: Option<LiveInstance>,
        signals: &[wit::Signal<'_>],
        runs: &[usize],
    ) -> Result<(LiveInstance, Verdict), Failure> {
        let call = async {
            let (mut store, guest) = match alive {
                Some((mut store, guest)) => {
                    guest::arm(&mut store, self.plugin.limits.timeout, &self.load);
                    (store, guest)
                }
                None => {
                    let mut store = self.store();
                    let guest = self.instantiate(&mut store).await?;
                    (store, guest)
                }
            };
            let lowered_type = self.lowered_type.signal_type();
            store.data_mut().enter(&lowered_type, signals);
            let answer = guest.send(&mut store, lowered_type, signals, runs).await?;
            Ok(((store, guest), answer))
        };
        let (alive, answer) = self.in_time(call).await?;
        self.measure(&alive.0);
        let unconfirmed = alive.0.data().unconfirmed();
        Ok(match answer {
            Ok(answer) => (alive, self.outcomes(self.judged(answer, signals), unconfirmed)),
            Err(outage) => (alive, Err(self.outage(outage))),
        })
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<ExportedSender> {
        let instance = self.plugin.pre.instantiate_async(&mut *store).await?;
        Ok(match self.entry {
            Entry::Runs(entry) => ExportedSender::Runs(entry.load(&mut *store, &instance)?),
            Entry::Bulk(entry) => ExportedSender::Bulk(entry.load(&mut *store, &instance)?),
            Entry::Single(entry) => ExportedSender::Single(entry.load(&mut *store, &instance)?),
        })
    }

    fn measure(&self, store: &Store<State>) {
        let PluginContext { signal_type, call_log, .. } = &self.plugin.context;
        telemetry::plugin_memory(signal_type, store.data().memory());
        call_log.iter().for_each(|call_log| call_log.memory(store.data().memory()));
    }

    fn store(&self) -> Store<State> {
        let plugin = self.plugin;
        let engine = plugin.engine.wasmtime();
        let mut store = guest::store(engine, &plugin.limits, plugin.context.clone(), self.logs.clone());
        guest::arm(&mut store, plugin.limits.timeout, &self.load);
        store
    }

    /// Enforces the deadline in two ways: the engine's clock interrupts a guest that spins, the timer
    /// drops one that waits.
    async fn in_time<T>(&self, call: impl Future<Output = wasmtime::Result<T>>) -> Result<T, Failure> {
        let mut backtrace = Backtrace::default();
        let begun = Instant::now();
        let deadline = Deadline::new(self.plugin.limits.timeout, &self.load);
        let answer = tokio::select! {
            biased;
            answer = drive(call, &self.load, &self.plugin.processors) => Some(answer),
            () = passed(&deadline) => None,
        };
        let signal_type = &self.plugin.context.signal_type;
        let time = begun.elapsed();
        telemetry::called(signal_type, time);
        let waited = deadline.waited();
        if !waited.is_zero() {
            telemetry::waited(signal_type, "processor", waited);
        }
        let (kind, reason) = match answer {
            Some(Ok(answer)) => {
                self.record_call(Call { time, ..Call::default() });
                // They must not become the reason of a later failure.
                self.logs.close_lines();
                return Ok(answer);
            }
            Some(Err(error)) => {
                backtrace = error.downcast_ref::<WasmBacktrace>().map(Backtrace::from).unwrap_or_default();
                let panicked = error.downcast_ref() == Some(&Trap::UnreachableCodeReached);
                self.explained(self.reason(&error), panicked, &mut backtrace)
            }
            None => self.explained(self.deadline_exceeded(), false, &mut backtrace),
        };
        telemetry::call_failed(signal_type, kind);
        if self.plugin.context.call_log.is_some() {
            let failed = Failed { kind, reason: reason.clone(), backtrace: self.plugin.written(&backtrace).await };
            self.record_call(Call { time, failure: Some(failed), ..Call::default() });
        }
        Err(Failure { reason, backtrace, timed_out: kind == "deadline" })
    }

    fn record_call(&self, call: Call) {
        if let Some(call_log) = &self.plugin.context.call_log {
            call_log.call(call);
        }
    }
}
