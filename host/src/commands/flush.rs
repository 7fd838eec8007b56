//! `flush`, `flushmany` and `flushordered`: send what is pending, show progress, report what became of
//! it.
//!
//! What is sent, and how, is decided in `signalbus_relay::Relay`; here is only how it is started and
//! shown.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, Output, Selection, open, print, print_json, printable, read_config, stop_on_signals, unreachable};
use crate::logging;
use signalbus_core::signal::Outage;
use signalbus_outbox::{Outbox, Source};
use signalbus_relay::flusher::{Halt, Tally};
use signalbus_relay::{Extent, Flushed, Relay};

pub(crate) async fn run(path: &Path, selection: &Selection, extent: Extent) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let chosen = config.chosen(&selection.names, &selection.exclude).map_err(|text| Failure::new(Exit::Usage, text))?;
    let stop = stop_on_signals()?;
    let sources = chosen.iter().map(|signal| signal.source.clone()).collect();
    let backlog = Backlog { outbox: open(&config)?, sources };
    let relay = tokio::select! {
        relay = Relay::open(&config, &chosen, super::compiler()) => relay?,
        () = stop.cancelled() => {
            report(&[], selection.output);
            return Ok(Exit::Done);
        }
    };
    loop {
        let begun = Instant::now();
        let exit = round(&relay, &backlog, extent, &stop, selection.output).await;
        let Some(period) = selection.repeat else { return Ok(exit) };
        tokio::select! {
            // Each round has reported its own errors; stopping is not one.
            () = stop.cancelled() => return Ok(Exit::Done),
            () = tokio::time::sleep(period.saturating_sub(begun.elapsed())) => {}
        }
    }
}

async fn round(relay: &Relay, backlog: &Backlog, extent: Extent, stop: &CancellationToken, output: Output) -> Exit {
    let mut progress = None;
    let show = |tallies| progress = Some(tokio::spawn(show_progress(tallies, backlog.clone())));
    let flushed = relay.flush(extent, stop, show).await;
    if let Some(progress) = progress {
        progress.abort();
        let _ = progress.await;
    }
    report(&flushed, output);
    flushed.iter().map(exit).max_by_key(|exit| severity(*exit)).unwrap_or(Exit::Done)
}

/// Shows a progress bar on a terminal, if the flush takes longer than a second.
async fn show_progress(tallies: Vec<Arc<Tally>>, backlog: Backlog) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    if !std::io::stderr().is_terminal() {
        return;
    }
    let settled = || tallies.iter().map(|tally| tally.total()).sum::<u64>();
    let bar = Cleared(ProgressBar::no_length());
    bar.0.set_style(style("{spinner} {human_pos} signals, {per_sec}, {elapsed}"));
    logging::keep_below(Some(bar.0.clone()));
    let mut counting = Some(std::pin::pin!(backlog.count()));
    loop {
        bar.0.set_position(settled());
        let tick = tokio::time::sleep(Duration::from_millis(100));
        let Some(count) = counting.as_mut() else {
            tick.await;
            continue;
        };
        tokio::select! {
            waiting = count => {
                counting = None;
                if let Some(waiting) = waiting {
                    bar.0.set_length(settled() + waiting);
                    bar.0.set_style(style("{wide_bar} {human_pos} of {human_len} signals, {per_sec}, {eta} left"));
                }
            }
            () = tick => {}
        }
    }
}

/// Counts the pending signals, for the length of the bar, over a connection opened only for that.
#[derive(Clone)]
struct Backlog {
    outbox: Outbox,
    sources: Vec<Source>,
}

impl Backlog {
    /// Slow for a table of millions; `None` if the database fails.
    async fn count(&self) -> Option<u64> {
        let mut count = 0;
        for source in &self.sources {
            count += self.outbox.pending(source).await.ok()?;
        }
        Some(count)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A bar that is cleared however its task ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        logging::keep_below(None);
        self.0.finish_and_clear();
    }
}

fn report(flushed: &[Flushed], output: Output) {
    let sum = |count: fn(&Tally) -> u64| flushed.iter().map(|part| count(&part.tally)).sum::<u64>();
    let sent = sum(|tally| tally.sent.load(Relaxed));
    let skipped = sum(|tally| tally.skipped.load(Relaxed));
    let deferred = sum(|tally| tally.deferred.load(Relaxed));
    let buried = sum(|tally| tally.buried.load(Relaxed));
    if output == Output::Json {
        let signals: Vec<_> = flushed.iter().map(describe).collect();
        let time = flushed.iter().map(|part| part.time).max().unwrap_or_default();
        let rate = u128::from(sent + skipped) * 1000 / time.as_millis().max(1);
        print_json(json!({
            "signals": signals, "sent": sent, "skipped": skipped, "deferred": deferred, "buried": buried,
            "seconds": time.as_secs_f64(), "rate": u64::try_from(rate).unwrap_or(u64::MAX),
        }));
        return;
    }
    for part in flushed {
        if let Some(halt) = &part.halt {
            logging::failed(&format!("signal type \"{}\": {}", part.signal, explain(halt)));
        }
    }
    let skipped = if skipped > 0 { format!("skipped {skipped}, ") } else { String::new() };
    print(format_args!("sent {sent}, {skipped}deferred {deferred}, buried {buried}"));
}

fn describe(part: &Flushed) -> serde_json::Value {
    json!({
        "type": part.signal,
        "sent": part.tally.sent.load(Relaxed),
        "skipped": part.tally.skipped.load(Relaxed),
        "deferred": part.tally.deferred.load(Relaxed),
        "buried": part.tally.buried.load(Relaxed),
        "fenced": part.tally.fenced.load(Relaxed),
        "error": part.halt.as_ref().map(explain),
    })
}

fn explain(halt: &Halt) -> String {
    match halt {
        Halt::Outage(Outage::Unavailable { reason, .. }) => format!("bus unavailable: {}", printable(reason)),
        Halt::Outage(Outage::Misconfigured { reason }) => format!("plugin misconfigured: {}", printable(reason)),
        Halt::Stalled(reason) => format!("plugin failed: {}", printable(reason)),
        Halt::Database(error) if error.is_unreachable() => unreachable(error),
        Halt::Database(error) => error.to_string(),
        Halt::Abandoned => "calls in flight did not finish within the grace period; their signals will be sent again".into(),
        Halt::Stopped => "stopped before everything was sent".into(),
    }
}

fn exit(part: &Flushed) -> Exit {
    match &part.halt {
        Some(Halt::Outage(Outage::Unavailable { .. })) => Exit::Unreachable,
        Some(Halt::Outage(Outage::Misconfigured { .. })) => Exit::Configuration,
        Some(Halt::Database(error)) if error.is_unreachable() => Exit::Unreachable,
        Some(Halt::Database(_) | Halt::Stalled(_) | Halt::Abandoned) => Exit::Failed,
        Some(Halt::Stopped) => Exit::Done,
        None if part.tally.deferred.load(Relaxed) + part.tally.buried.load(Relaxed) > 0 => Exit::Failed,
        None => Exit::Done,
    }
}

fn severity(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::Failed => 1,
        Exit::Usage => 2,
        Exit::Unreachable => 3,
        Exit::Configuration => 4,
    }
}
