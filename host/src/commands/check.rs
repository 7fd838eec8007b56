//! `check`: every fault, each with its place and cure, before anything starts.

use std::path::Path;

use super::{Exit, Failure, open, print, read_config};
use crate::config::SignalConfig;
use crate::outbox::{Error, Fault, Outbox};
use crate::plugin::{Engine, Plugin};
use crate::relay::cache_folder;

pub(crate) async fn run(path: &Path) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let mut faults = Vec::new();
    match outbox.require_schema().await {
        Err(error @ Error::Unreachable(_)) => return Err(error.into()),
        Err(error) => faults.push(Fault::Fatal(error.to_string())),
        Ok(()) => {}
    }
    let engine = Engine::new(cache_folder()).map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))?;
    for signal in &config.signals {
        faults.extend(check(&outbox, &engine, signal).await?);
    }
    let mut fatal = 0;
    for fault in &faults {
        match fault {
            Fault::Fatal(text) => {
                fatal += 1;
                print(format_args!("error: {text}"));
            }
            Fault::Doubtful(text) => print(format_args!("warning: {text}")),
        }
    }
    if fatal > 0 {
        return Ok(Exit::Configuration);
    }
    let names: Vec<&str> = config.signals.iter().map(SignalConfig::name).collect();
    print(format_args!("ready to send: {}", names.join(", ")));
    Ok(Exit::Done)
}

async fn check(outbox: &Outbox, engine: &Engine, signal: &SignalConfig) -> Result<Vec<Fault>, Failure> {
    let mut faults = outbox.faults(&signal.source).await?;
    let digest = signal.digest.as_deref();
    let loaded = Plugin::load(engine, &signal.plugin, digest, signal.name(), signal.limits, signal.grants.clone()).await;
    if let Err(error) = loaded {
        faults.push(Fault::Fatal(format!("signal type \"{}\": {error}", signal.name())));
    }
    Ok(faults)
}
