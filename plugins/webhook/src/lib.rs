//! Posts every signal to an HTTP server, signed according to Standard Webhooks.
//!
//! A redirect is never followed. `hook` builds the requests, `answer` turns responses into outcomes.

#![forbid(unsafe_code)]

mod answer;
mod hook;
mod settings;
mod sign;
mod template;

use std::time::{Duration, Instant};

use signalbus_guest::{BulkResult, Outcome, Signal, http, plugin};

use answer::Answer;
use hook::Hook;

/// Sends many requests concurrently, each with its own outcome.
fn send_all(signals: &[Signal]) -> BulkResult {
    let Some(first) = signals.first() else { return Ok(Vec::new()) };
    let hook = Hook::new(first)?;
    let time = Time::for_signal(first, hook.timeout());
    let mut outcomes = vec![untried(); signals.len()];
    let mut tried = Vec::with_capacity(signals.len());
    let in_time = signals.iter().enumerate().take_while(|_| !time.is_up());
    let requests = in_time.filter_map(|(index, signal)| match hook.request(signal, time.request) {
        Ok(request) => {
            tried.push(index);
            Some(request)
        }
        Err(reason) => {
            outcomes[index] = Outcome::reject(reason);
            None
        }
    });
    let answers: Vec<Answer> = http::send_all(requests, hook.parallel()).into_iter().map(Answer::from_result).collect();
    if let Some(outage) = answer::outage(&answers) {
        return Err(outage);
    }
    for (index, answer) in tried.into_iter().zip(answers) {
        outcomes[index] = match answer {
            Answer::Outcome(outcome) => outcome,
            Answer::Unreachable(reason) | Answer::Denied(reason) => Outcome::retry(reason),
        };
    }
    Ok(outcomes)
}

plugin!(bulk send_all);

fn untried() -> Outcome {
    Outcome::retry("the call ran out of time before its request could start")
}

/// The time limits of a call: the relay stops a plugin that exceeds them, and nothing would count as
/// sent.
#[derive(Clone, Copy)]
struct Time {
    /// Time limit of one request.
    request: Duration,
    /// No request starts later.
    last: Instant,
}

impl Time {
    fn for_signal(signal: &Signal, request: Duration) -> Self {
        let call = signal.call_timeout().unwrap_or(Duration::from_secs(30));
        let request = request.min(call.mul_f64(0.8));
        Self { request, last: Instant::now() + call.mul_f64(0.9) - request }
    }

    fn is_up(&self) -> bool {
        Instant::now() > self.last
    }
}

#[cfg(test)]
mod tests;
