//! Why a call failed: the reason, with the plugin's last words, and the place in the plugin.
//!
//! Reports a place once for each generation, however often a call fails there. Next: `backtrace`; `last_words`.

use std::sync::PoisonError;

use wasmtime::Trap;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use super::CallContext;
use crate::backtrace::Backtrace;
use crate::limits::{MemoryExhausted, Size};
use crate::plugin_context::PluginContext;
use crate::send::Failure;
use crate::wit::signalbus::plugin::types as wit;
use crate::{guest, wrong_value};
use signalbus_telemetry as telemetry;

/// Maximum number of failure locations reported per generation.
const MAX_PLACES: usize = 20;

impl CallContext<'_> {
    /// Adds the plugin's last words to the reason of a failure, or says what they mean.
    pub(super) fn explained(
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

    /// Logs a failure that is charged to no signal, so that its reason is not lost.
    pub(super) fn report(&self, failure: &Failure, signals: usize, message: &str) {
        let PluginContext { plugin, signal_type, call_log, .. } = &self.plugin.context;
        if call_log.is_some() {
            return;
        }
        let reason = &*failure.reason;
        tracing::warn!(target: "plugin", %plugin, %signal_type, signals, reason, "{message}");
    }

    /// Reports where in the plugin a call failed, once per location and generation.
    pub(super) async fn report_crash(&self, Failure { reason, backtrace, .. }: &Failure, signals: &[wit::Signal<'_>]) {
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
    pub(super) fn reason(&self, error: &wasmtime::Error) -> (&'static str, String) {
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

    pub(super) fn deadline_exceeded(&self) -> (&'static str, String) {
        ("deadline", format!("plugin exceeded its deadline of {:?}", self.plugin.limits.timeout))
    }
}

/// Lists the first ids, which are enough to find the signals.
fn ids(signals: &[wit::Signal<'_>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = signals.iter().take(SHOWN).map(|signal| signal.id).collect();
    let more = signals.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(" ") + &rest
}
