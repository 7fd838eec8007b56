//! `flush`, `flushmany` and `flushordered`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, Output, Selection, print, read_config};
use crate::flusher::{Halt, Tally};
use crate::relay::{Extent, Flushed, Relay};
use crate::signal::Outage;

pub(crate) async fn run(path: &Path, selection: &Selection, extent: Extent) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let chosen = config
        .chosen(&selection.names, &selection.exclude)
        .map_err(|text| Failure::new(Exit::Usage, text))?;
    let stop = stop_on_signals()?;
    let relay = Relay::open(&config, &chosen).await?;
    loop {
        let begun = Instant::now();
        let exit = round(&relay, extent, &stop, selection.output).await;
        let Some(period) = selection.repeat else { return Ok(exit) };
        tokio::select! {
            () = stop.cancelled() => return Ok(exit),
            () = tokio::time::sleep(period.saturating_sub(begun.elapsed())) => {}
        }
    }
}

async fn round(relay: &Relay, extent: Extent, stop: &CancellationToken, output: Output) -> Exit {
    let mut progress = None;
    let flushed = relay
        .flush(extent, stop, |tallies| progress = Some(tokio::spawn(show_progress(tallies))))
        .await;
    if let Some(progress) = progress {
        progress.abort();
        let _ = progress.await;
    }
    report(&flushed, output);
    flushed.iter().map(exit).max_by_key(|exit| severity(*exit)).unwrap_or(Exit::Done)
}

/// A progress bar on a terminal, once it takes longer than a second.
async fn show_progress(tallies: Vec<Arc<Tally>>) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bar = Cleared(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} signals settled, {per_sec}, {elapsed}") {
        bar.0.set_style(style);
    }
    loop {
        let settled = |tally: &Arc<Tally>| {
            let counters = [&tally.sent, &tally.skipped, &tally.deferred, &tally.buried];
            counters.iter().map(|counter| counter.load(Relaxed)).sum::<u64>()
        };
        bar.0.set_position(tallies.iter().map(settled).sum());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A bar that leaves no trace, however its task ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
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
        print(json!({
            "signals": signals, "sent": sent, "skipped": skipped, "deferred": deferred, "buried": buried,
        }));
        return;
    }
    for part in flushed {
        if let Some(halt) = &part.halt {
            eprintln!("error: signal type \"{}\": {}", part.signal, explain(halt));
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
        Halt::Outage(Outage::Unavailable { reason, .. }) => format!("the bus is not available: {reason}"),
        Halt::Outage(Outage::Misconfigured { reason }) => format!("the plugin is misconfigured: {reason}"),
        Halt::Database(error) => error.to_string(),
        Halt::Stopped => "stopped before everything was sent".into(),
    }
}

fn exit(part: &Flushed) -> Exit {
    match &part.halt {
        Some(Halt::Outage(Outage::Unavailable { .. })) => Exit::Unreachable,
        Some(Halt::Outage(Outage::Misconfigured { .. })) => Exit::Configuration,
        Some(Halt::Database(error)) if error.is_unreachable() => Exit::Unreachable,
        Some(Halt::Database(_)) => Exit::Failed,
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

/// SIGTERM and SIGINT drain; a second one ends at once.
fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                std::process::exit(130);
            }
            stopper.cancel();
        }
    });
    Ok(stop)
}
