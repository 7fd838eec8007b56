//! Calls into a guest: the store and instance, the deadline, and the reason of a failure.
//!
//! An instance that trapped or timed out must never be entered again; its store is dropped. Which
//! signals go into which call is decided in `send`; what the guest may do meanwhile, in `guest`.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::backtrace::Backtrace;
use super::batch::{LoweredBatch, LoweredType};
use super::call_log::{Call, Failed};
use super::guest::{self, State};
use super::limits::{Deadline, Load, MemoryExhausted, Processors, Size, longest_reason};
use super::load::{Entry, Plugin};
use super::logs::{PluginContext, PluginLogs};
use super::runs::{self, Answer};
use super::send::{Calls, Failure, GuestCalls, SendStrategy};
use super::wit::exports::signalbus::plugin::{bulk_sender, ordered_sender, sender};
use super::wit::signalbus::plugin::types as wit;
use super::{Sender, Sending, wrong_value};
use signalbus_core::signal::{Outage, Outcome, Signal, SignalType, Verdict};
use signalbus_core::text;
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

/// The calls of one send. They reuse an instance as long as it answers.
struct BatchCalls<'a> {
    context: CallContext<'a>,
    batch: &'a [Signal],
    signals: &'a [wit::Signal<'a>],
    alive: Option<LiveInstance>,
    /// A bus had an outage in the midst of runs: what is left would only meet it again.
    met_outage: bool,
    /// A failure of several signals together, until one of them fails alone.
    unattributed: Option<(Failure, Vec<usize>)>,
    started: Instant,
    stop: &'a CancellationToken,
    /// No call starts after this time.
    patience: Duration,
}

/// An instance that may be entered again.
type LiveInstance = (Store<State>, ExportedSender);

/// The sender that a plugin exports, in an instance.
enum ExportedSender {
    Runs(ordered_sender::Guest),
    Bulk(bulk_sender::Guest),
    Single(sender::Guest),
}

impl ExportedSender {
    async fn send(
        &self,
        store: &mut Store<State>,
        signal_type: wit::SignalType<'_>,
        signals: &[wit::Signal<'_>],
        runs: &[usize],
    ) -> wasmtime::Result<Result<Answer, wit::Outage>> {
        let plain = |outcomes: Vec<wit::Outcome>| Answer::plain(outcomes.into_iter().map(Outcome::from).collect(), signals.len());
        Ok(match self {
            Self::Runs(guest) => {
                let answer = guest.call_send_signalbus_runs(store, signal_type, &runs::split(signals, runs)).await?;
                answer.map(|lists| {
                    let list = |list: Vec<wit::RunOutcome>| list.into_iter().map(Outcome::from).collect();
                    Answer::read(lists.into_iter().map(list).collect(), runs)
                })
            }
            Self::Bulk(guest) => guest.call_send_signalbus_messages(store, signal_type, signals).await?.map(plain),
            Self::Single(guest) => {
                let answer = guest.call_send_signalbus_message(store, signal_type, signals[0].clone()).await?;
                answer.map(|outcome| plain(vec![outcome]))
            }
        })
    }
}

impl GuestCalls for BatchCalls<'_> {
    fn calls(&self) -> Calls {
        match self.context.entry {
            Entry::Runs(_) => Calls::Runs,
            Entry::Bulk(_) => Calls::Many,
            Entry::Single(_) => Calls::Single,
        }
    }

    async fn send(&mut self, positions: &[usize]) -> Result<Verdict, Failure> {
        let signals = self.select(positions);
        let runs = self.runs(positions);
        let alive = self.alive.take();
        let entered_before = alive.is_some();
        let mut answer = self.context.call(alive, &signals, &runs).await;
        if let Err(failure) = &answer
            && entered_before
            && !failure.timed_out
            && positions.len() == 1
        {
            // State that earlier signals left in the instance may be the cause.
            self.context.report(failure, 1, "call failed, retrying in a fresh instance");
            if self.is_stopped() || self.elapsed() >= self.patience {
                return Ok(Ok(vec![Outcome::Held]));
            }
            answer = self.context.call(None, &signals, &runs).await;
        }
        match answer {
            Ok((alive, answer)) => {
                self.met_outage |= alive.0.data().met_outage();
                self.alive = Some(alive);
                Ok(answer)
            }
            Err(failure) => {
                if let &[position] = positions {
                    self.unattributed.take_if(|(_, suspects)| suspects.contains(&position));
                    self.context.report_crash(&failure, &signals).await;
                } else {
                    self.context.report(&failure, positions.len(), "batch failed, sending its signals one by one");
                    self.report_unattributed().await;
                    self.unattributed = Some((failure.clone(), positions.to_vec()));
                }
                Err(failure)
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_stopped(&self) -> bool {
        self.met_outage || self.stop.is_cancelled()
    }
}

impl<'a> BatchCalls<'a> {
    fn select(&self, positions: &[usize]) -> Vec<wit::Signal<'a>> {
        positions.iter().map(|&position| self.signals[position].clone()).collect()
    }

    /// Returns the lengths of the runs of these signals. Where there is no order, each is a run of its own.
    fn runs(&self, positions: &[usize]) -> Vec<usize> {
        match (&self.context.entry, self.context.ordered) {
            (Entry::Runs(_), true) => runs::lengths(positions.iter().map(|&position| self.batch[position].order_key.as_str())),
            (Entry::Runs(_), false) => vec![1; positions.len()],
            _ => Vec::new(),
        }
    }

    /// Reports the crash of a call whose signals did not fail alone, or were not tried alone.
    async fn report_unattributed(&mut self) {
        if let Some((failure, suspects)) = self.unattributed.take() {
            self.context.report_crash(&failure, &self.select(&suspects)).await;
        }
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

/// Drives a call to its end. Once the call is heavy, each tick waits for its turn and runs on a
/// blocking thread, so that it does not delay the runtime's other tasks.
async fn drive<T>(call: impl Future<Output = T>, load: &Load, processors: &Processors) -> T {
    let mut call = pin!(call);
    let spare = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    loop {
        let mut turn = None;
        if load.is_heavy() || processors.is_spent() {
            let _wait = load.wait();
            turn = processors.turn().await;
        }
        let begun = Instant::now();
        let polled = poll_fn(|context| {
            load.resume();
            Poll::Ready(match spare && turn.is_some() {
                true => block_in_place(|| call.as_mut().poll(context)),
                false => call.as_mut().poll(context),
            })
        });
        let answer = polled.await;
        if turn.is_none() {
            processors.spend(begun.elapsed());
        }
        if let Poll::Ready(answer) = answer {
            return answer;
        }
        drop(turn);
        until_woken().await;
    }
}

/// Waits until the time of a call is over.
async fn passed(deadline: &Deadline) {
    while !deadline.left().is_zero() {
        tokio::time::sleep(deadline.left()).await;
    }
}

/// Waits until the future polled last in this task wakes it.
async fn until_woken() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
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

    /// Adds the plugin's last words to the reason of a failure, or says what they mean.
    fn explained(
        &self,
        (kind, reason): (&'static str, String),
        panicked: bool,
        backtrace: &mut Backtrace,
    ) -> (&'static str, String) {
        let Some(words) = self.logs.close_lines() else { return (kind, reason) };
        if panicked && let Some(explanation) = backtrace.boundary().and_then(|boundary| wrong_value::explain(&words, boundary)) {
            *backtrace = std::mem::take(backtrace).at_boundary();
            return ("other", explanation);
        }
        let reason = match panicked {
            // A panic always ends in a trap, which adds nothing to its message.
            true if words.starts_with("panicked at ") => format!("plugin {words}"),
            true => format!("plugin trapped: {words}"),
            false => format!("{reason}: {words}"),
        };
        (kind, reason)
    }

    fn record_call(&self, call: Call) {
        if let Some(call_log) = &self.plugin.context.call_log {
            call_log.call(call);
        }
    }

    /// Logs a failure that is charged to no signal, so that its reason is not lost.
    fn report(&self, failure: &Failure, signals: usize, message: &str) {
        let PluginContext { plugin, signal_type, call_log, .. } = &self.plugin.context;
        if call_log.is_some() {
            return;
        }
        let reason = &*failure.reason;
        tracing::warn!(target: "plugin", %plugin, %signal_type, signals, reason, "{message}");
    }

    /// Reports where in the plugin a call failed, once per location and generation.
    async fn report_crash(&self, Failure { reason, backtrace, .. }: &Failure, signals: &[wit::Signal<'_>]) {
        let context = &self.plugin.context;
        if backtrace.is_empty() || context.call_log.is_some() {
            return;
        }
        let new = {
            let mut reported = self.plugin.reported.lock().unwrap_or_else(PoisonError::into_inner);
            reported.len() < MAX_PLACES && reported.insert(backtrace.place())
        };
        if new {
            let backtrace = self.plugin.written(backtrace).await;
            telemetry::stopped(&context.plugin, &context.generation, &context.signal_type, &ids(signals), reason, &backtrace);
        }
    }

    /// Returns the kind of a failure, as in the metrics, and its reason.
    fn reason(&self, error: &wasmtime::Error) -> (&'static str, String) {
        if let Some(exhausted) = error.downcast_ref::<MemoryExhausted>() {
            return ("memory", exhausted.to_string());
        }
        if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
            return ("exit", format!("plugin called exit({status})"));
        }
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return ("other", format!("plugin holds more than {} host resources at once", guest::RESOURCES));
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => self.deadline_exceeded(),
            Some(trap) => ("trap", format!("plugin trapped: {trap}")),
            None => ("other", self.other(&error.root_cause().to_string())),
        }
    }

    /// Explains an error that has no type of its own.
    fn other(&self, error: &str) -> String {
        // The engine's words for a list of texts, say, that are all the same one.
        if error.starts_with("too much data is being copied") {
            let most = Size(self.plugin.limits.memory);
            return format!("plugin passed too much data to the relay at once: more than its memory limit of {most}");
        }
        format!("plugin failed: {error}")
    }

    fn deadline_exceeded(&self) -> (&'static str, String) {
        ("deadline", format!("plugin exceeded its deadline of {:?}", self.plugin.limits.timeout))
    }

    /// Reports what is wrong with an answer, and returns the outcomes in it.
    fn judged(&self, answer: Answer, signals: &[wit::Signal<'_>]) -> Vec<Outcome> {
        let PluginContext { plugin, signal_type, call_log, .. } = &self.plugin.context;
        let out_of_order = answer.out_of_order.map(|position| signals[position].id);
        match call_log {
            Some(call_log) => {
                answer.wrong_length.iter().for_each(|&(outcomes, signals)| call_log.wrong_length(outcomes, signals));
                out_of_order.iter().for_each(|id| call_log.out_of_order(id));
            }
            None => out_of_order.iter().for_each(|id| telemetry::out_of_order(plugin, signal_type, id)),
        }
        answer.outcomes
    }

    fn outcomes(&self, mut outcomes: Vec<Outcome>, unconfirmed: bool) -> Verdict {
        if outcomes.iter().all(|outcome| *outcome == Outcome::Held) {
            if unconfirmed {
                let reason = "a bus did not confirm a message of every signal".to_owned();
                return Err(Outage::Unavailable { reason, after: None });
            }
            // A call that tries nothing would be repeated for ever.
            outcomes.fill(Outcome::retry("the plugin tried none of the signals of a call"));
        }
        let mut reasons: Vec<&mut String> = outcomes.iter_mut().filter_map(reason_of).collect();
        let most = longest_reason(reasons.len());
        reasons.iter_mut().for_each(|reason| self.tidy(reason, most));
        Ok(outcomes)
    }

    fn outage(&self, outage: wit::Outage) -> Outage {
        let mut outage = Outage::from(outage);
        let (Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) = &mut outage;
        self.tidy(reason, longest_reason(1));
        outage
    }

    /// Redacts secrets that a plugin quotes, and cuts what is too long, since reasons are kept, logged and
    /// stored. In this order, because a secret cut in half could not be redacted.
    fn tidy(&self, reason: &mut String, most: usize) {
        if let Cow::Owned(redacted) = self.plugin.context.grants.redact(reason) {
            *reason = redacted;
        }
        text::cut(reason, most);
    }
}

fn reason_of(outcome: &mut Outcome) -> Option<&mut String> {
    match outcome {
        Outcome::Retry { reason, .. } | Outcome::Reject { reason } => Some(reason),
        Outcome::Sent | Outcome::Skip | Outcome::Held => None,
    }
}

/// Maximum number of failure locations reported per generation.
const MAX_PLACES: usize = 20;

/// Lists the first ids, which are enough to find the signals.
fn ids(signals: &[wit::Signal<'_>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = signals.iter().take(SHOWN).map(|signal| signal.id).collect();
    let more = signals.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(" ") + &rest
}
