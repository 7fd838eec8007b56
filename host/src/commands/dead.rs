//! `dead`: lists, shows, redrives and discards dead letters.
//!
//! Text from a database is made printable before it is shown. The letters are in `signalbus_outbox`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Exit, Failure, Output, open, print, printable, read_config};
use crate::logging;
use signalbus_outbox::{DeadLetter, Outbox};
use signalbus_relay::Redriven;
use signalbus_relay::config::Config;

/// The dead letters that a command applies to.
#[derive(Debug)]
pub(crate) enum Choice {
    Ids(Vec<i64>),
    OfType(String),
    All,
}

pub(crate) async fn list(path: &Path, names: &[String], limit: usize, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    config.chosen(names, &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    let letters = open(&config)?.dead_letters(names, limit).await?;
    if output == Output::Json {
        print(json!({ "dead_letters": letters }));
        return Ok(Exit::Done);
    }
    if letters.is_empty() {
        print("no dead letters");
    }
    for letter in &letters {
        let DeadLetter { id, signal, attempts, .. } = letter;
        let (key, reason) = (printable(&letter.key), printable(&letter.reason));
        print(format_args!("{id:>7}  {signal}:{key}  attempts {attempts}  {reason}"));
    }
    Ok(Exit::Done)
}

pub(crate) async fn show(path: &Path, id: i64, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let Some(letter) = outbox.dead_letter(id).await? else { return Err(not_found(id)) };
    let row = match config.signals.iter().find(|signal| signal.name() == letter.signal) {
        Some(signal) => outbox.signal_table(&signal.source).await?.dead_row(&letter).await?,
        None => None,
    };
    if output == Output::Json {
        let row = row.map(|row| row.into_iter().map(|(name, value)| (name, json!(value))).collect::<serde_json::Map<_, _>>());
        print(json!({ "dead_letter": letter, "row": row }));
        return Ok(Exit::Done);
    }
    print(format_args!("signal    {}:{}", letter.signal, printable(&letter.key)));
    print(format_args!("attempts  {}", letter.attempts));
    print(format_args!("reason    {}", printable(&letter.reason)));
    print(if row.is_some() { "row" } else { "row gone, or its signal type is not configured" });
    for (name, value) in row.into_iter().flatten() {
        print(format_args!("  {name} = {}", value.map_or("NULL".into(), |value| printable(&value))));
    }
    Ok(Exit::Done)
}

pub(crate) async fn redrive(path: &Path, choice: &Choice, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let letters = chosen(&config, &outbox, choice).await?;
    let Redriven { redriven, failed } = signalbus_relay::redrive(&outbox, &config.signals, &letters).await?;
    for text in &failed {
        logging::failed(text);
    }
    match output {
        Output::Json => print(json!({ "redriven": redriven, "failed": failed.len() })),
        Output::Text => print(format_args!("redriven {redriven}")),
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(crate) async fn discard(path: &Path, choice: &Choice, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let mut types: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
    for letter in chosen(&config, &outbox, choice).await? {
        types.entry(letter.signal.clone()).or_default().push(letter);
    }
    let mut discarded = 0;
    for (name, letters) in types {
        let signal = config.signals.iter().find(|signal| signal.name() == name).ok_or_else(|| {
            let text = format!("dead letter {}: signal type \"{name}\" is not configured; configure it", letters[0].id);
            Failure::new(Exit::Configuration, text)
        })?;
        discarded += outbox.signal_table(&signal.source).await?.discard(&letters).await?;
    }
    match output {
        Output::Json => print(json!({ "discarded": discarded })),
        Output::Text => print(format_args!("discarded {discarded}")),
    }
    Ok(Exit::Done)
}

async fn chosen(config: &Config, outbox: &Outbox, choice: &Choice) -> Result<Vec<DeadLetter>, Failure> {
    let names = match choice {
        Choice::Ids(ids) => {
            let mut letters = Vec::new();
            for &id in ids {
                letters.push(outbox.dead_letter(id).await?.ok_or_else(|| not_found(id))?);
            }
            return Ok(letters);
        }
        Choice::OfType(name) => vec![name.clone()],
        Choice::All => Vec::new(),
    };
    config.chosen(&names, &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    Ok(outbox.all_dead_letters(&names).await?)
}

fn not_found(id: i64) -> Failure {
    Failure::new(Exit::Failed, format!("dead letter {id} not found; see `signalbus dead list`"))
}
