//! `dead`: lists, shows, redrives and discards dead letters.
//!
//! Text from a database is made printable before it is shown. The letters are in `signalbus_outbox`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Exit, Failure, Output, open, print, print_json, read_config};
use crate::logging;
use signalbus_outbox::{DeadGroup, DeadLetter, Outbox, Selection};
use signalbus_relay::Redriven;
use signalbus_relay::config::Config;

/// The dead letters that a command applies to.
#[derive(Debug)]
pub(crate) struct Choice {
    /// These; or, if there are none, all that are selected.
    pub(crate) ids: Vec<i64>,
    pub(crate) selection: Selection,
}

/// Lists dead letters, up to `limit`; or, without a limit, the groups of their reasons.
pub(crate) async fn list(path: &Path, selection: &Selection, limit: Option<usize>, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    config.chosen(&selection.signals, &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    let outbox = open(&config)?;
    let Some(limit) = limit else {
        print_groups(&outbox.dead_groups(selection).await?, output);
        return Ok(Exit::Done);
    };
    let letters = outbox.select_dead(selection, 0, limit).await?;
    if output == Output::Json {
        print_json(json!({ "dead_letters": letters }));
        return Ok(Exit::Done);
    }
    if letters.is_empty() {
        print("no dead letters");
    }
    for letter in &letters {
        let DeadLetter { id, signal, attempts, .. } = letter;
        let (key, reason) = (&letter.key, &letter.reason);
        print(format_args!("{id:>7}  {signal}:{key}  attempts {attempts}  {reason}"));
    }
    Ok(Exit::Done)
}

fn print_groups(groups: &[DeadGroup], output: Output) {
    if output == Output::Json {
        return print_json(json!({ "groups": groups }));
    }
    if groups.is_empty() {
        print("no dead letters");
    }
    for DeadGroup { signal, group, count, reason, .. } in groups {
        print(format_args!("{count:>7}  {signal}  {group}  {reason}"));
    }
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
        print_json(json!({ "dead_letter": letter, "row": row }));
        return Ok(Exit::Done);
    }
    print(format_args!("signal    {}:{}", letter.signal, letter.key));
    print(format_args!("attempts  {}", letter.attempts));
    print(format_args!("reason    {}", letter.reason));
    print(if row.is_some() { "row" } else { "row gone, or its signal type is not configured" });
    for (name, value) in row.into_iter().flatten() {
        print(format_args!("  {name} = {}", value.unwrap_or_else(|| "NULL".into())));
    }
    Ok(Exit::Done)
}

pub(crate) async fn redrive(path: &Path, choice: &Choice, dry_run: bool, output: Output) -> Result<Exit, Failure> {
    let (config, outbox) = opened(path, choice)?;
    if dry_run {
        return count(&outbox, choice, output).await;
    }
    let Redriven { redriven, failed } = match choice.ids.is_empty() {
        true => signalbus_relay::redrive_selected(&outbox, &config.signals, &choice.selection).await?,
        false => signalbus_relay::redrive(&outbox, &config.signals, &named(&outbox, &choice.ids).await?).await?,
    };
    for text in &failed {
        logging::failed(text);
    }
    match output {
        Output::Json => print_json(json!({ "redriven": redriven, "failed": failed.len() })),
        Output::Text => print(format_args!("redriven {redriven}")),
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(crate) async fn discard(path: &Path, choice: &Choice, dry_run: bool, output: Output) -> Result<Exit, Failure> {
    /// How many letters are looked at together.
    const PAGE: usize = 1000;
    let (config, outbox) = opened(path, choice)?;
    if dry_run {
        return count(&outbox, choice, output).await;
    }
    let mut discarded = 0;
    if !choice.ids.is_empty() {
        discarded = discard_these(&config, &outbox, named(&outbox, &choice.ids).await?).await?;
    }
    let mut after = 0;
    while choice.ids.is_empty() {
        let page = outbox.select_dead(&choice.selection, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        discarded += discard_these(&config, &outbox, page).await?;
    }
    match output {
        Output::Json => print_json(json!({ "discarded": discarded })),
        Output::Text => print(format_args!("discarded {discarded}")),
    }
    Ok(Exit::Done)
}

async fn discard_these(config: &Config, outbox: &Outbox, letters: Vec<DeadLetter>) -> Result<u64, Failure> {
    let mut types: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
    for letter in letters {
        types.entry(letter.signal.clone()).or_default().push(letter);
    }
    let mut discarded = 0;
    for (name, letters) in types {
        let signal = config.signals.iter().find(|signal| signal.name() == name).ok_or_else(|| {
            let text = format!("dead letter {}: {}", letters[0].id, signalbus_relay::not_configured(&name));
            Failure::new(Exit::Configuration, text)
        })?;
        discarded += outbox.signal_table(&signal.source).await?.discard(&letters).await?;
    }
    Ok(discarded)
}

/// Opens the outbox, and checks what was chosen.
fn opened(path: &Path, choice: &Choice) -> Result<(Config, Outbox), Failure> {
    let config = read_config(path)?;
    config.chosen(&choice.selection.signals, &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    if !choice.ids.is_empty() && choice.selection != Selection::default() {
        return Err(Failure::new(Exit::Usage, "--reason and --older-than go with --all and --signal, not with IDs"));
    }
    let outbox = open(&config)?;
    Ok((config, outbox))
}

async fn count(outbox: &Outbox, choice: &Choice, output: Output) -> Result<Exit, Failure> {
    let mut count = named(outbox, &choice.ids).await?.len() as u64;
    if choice.ids.is_empty() {
        count = outbox.dead_groups(&choice.selection).await?.iter().map(|group| group.count).sum();
    }
    match output {
        Output::Json => print_json(json!({ "dead_letters": count })),
        Output::Text => print(format_args!("{count} dead letter{}", if count == 1 { "" } else { "s" })),
    }
    Ok(Exit::Done)
}

async fn named(outbox: &Outbox, ids: &[i64]) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters = Vec::new();
    for &id in ids {
        letters.push(outbox.dead_letter(id).await?.ok_or_else(|| not_found(id))?);
    }
    Ok(letters)
}

fn not_found(id: i64) -> Failure {
    Failure::new(Exit::Failed, format!("dead letter {id} not found; see `signalbus dead list`"))
}
