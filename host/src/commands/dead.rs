//! `dead`: list, show, redrive and discard what could not be sent.

use std::path::Path;

use serde_json::json;

use super::{Exit, Failure, Output, open, print, printable, read_config};
use crate::config::Config;
use crate::outbox::{DeadLetter, Outbox};
use crate::telemetry;

/// Which dead letters a command is about.
#[derive(Debug)]
pub(crate) enum Choice {
    Ids(Vec<i64>),
    OfType(String),
    All,
}

/// How many letters are looked up at a time.
const PAGE: usize = 500;

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
    let outbox = open(&read_config(path)?)?;
    let Some((letter, row)) = outbox.dead_letter(id).await? else { return Err(unknown(id)) };
    if output == Output::Json {
        let row: serde_json::Map<_, _> = row.into_iter().map(|(name, value)| (name, json!(value))).collect();
        print(json!({ "dead_letter": letter, "row": row }));
        return Ok(Exit::Done);
    }
    print(format_args!("signal    {}:{}", letter.signal, printable(&letter.key)));
    print(format_args!("attempts  {}", letter.attempts));
    print(format_args!("reason    {}", printable(&letter.reason)));
    print("row");
    for (name, value) in row {
        print(format_args!("  {name} = {}", value.map_or("NULL".into(), |value| printable(&value))));
    }
    Ok(Exit::Done)
}

pub(crate) async fn redrive(path: &Path, choice: &Choice, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let letters = chosen(&config, &outbox, choice).await?;
    let mut lanes = std::collections::HashMap::new();
    let mut redriven = 0;
    let mut failed = 0;
    for letter in &letters {
        if !lanes.contains_key(&letter.signal) {
            let Some(signal) = config.signals.iter().find(|signal| signal.name() == letter.signal) else {
                let text = format!("there is no signal type \"{}\" any more; configure it, or discard the letter", letter.signal);
                telemetry::failed(&format!("dead letter {}: {text}", letter.id));
                failed += 1;
                continue;
            };
            lanes.insert(letter.signal.clone(), outbox.lane(&signal.source).await?);
        }
        match lanes[&letter.signal].redrive(letter.id).await {
            Ok(true) => redriven += 1,
            // Somebody else was faster.
            Ok(false) => {}
            Err(error) if error.is_unreachable() => return Err(error.into()),
            Err(error) => {
                telemetry::failed(&format!("dead letter {}: {error}", letter.id));
                failed += 1;
            }
        }
    }
    match output {
        Output::Json => print(json!({ "redriven": redriven, "failed": failed })),
        Output::Text => print(format_args!("redriven {redriven}")),
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

pub(crate) async fn discard(path: &Path, choice: &Choice, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let mut discarded = 0;
    for letter in chosen(&config, &outbox, choice).await? {
        discarded += u64::from(outbox.discard(letter.id).await?);
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
                let (letter, _) = outbox.dead_letter(id).await?.ok_or_else(|| unknown(id))?;
                letters.push(letter);
            }
            return Ok(letters);
        }
        Choice::OfType(name) => vec![name.clone()],
        Choice::All => Vec::new(),
    };
    config.chosen(&names, &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let after = letters.last().map_or(0, |letter| letter.id);
        let page = outbox.dead_letters_after(&names, after, PAGE).await?;
        let last = page.len() < PAGE;
        letters.extend(page);
        if last {
            return Ok(letters);
        }
    }
}

fn unknown(id: i64) -> Failure {
    Failure::new(Exit::Failed, format!("there is no dead letter {id}; `signalbus dead list` lists them"))
}
