//! What a call has answered, as it may be settled, logged and stored.
//!
//! No secret that a plugin quotes gets out, and nothing too long. Next: `settlement` in `signalbus-core`.

use std::borrow::Cow;

use super::CallContext;
use crate::limits::longest_reason;
use crate::plugin_context::PluginContext;
use crate::runs::Answer;
use crate::wit::signalbus::plugin::types as wit;
use signalbus_core::signal::{Outage, Outcome, Verdict};
use signalbus_core::text;
use signalbus_telemetry as telemetry;

impl CallContext<'_> {
    /// Reports what is wrong with an answer, and returns the outcomes in it.
    pub(super) fn judged(&self, answer: Answer, signals: &[wit::Signal<'_>]) -> Vec<Outcome> {
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

    pub(super) fn outcomes(&self, mut outcomes: Vec<Outcome>, unconfirmed: bool) -> Verdict {
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

    pub(super) fn outage(&self, outage: wit::Outage) -> Outage {
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
