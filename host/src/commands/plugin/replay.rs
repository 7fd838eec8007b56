//! `plugin replay`: runs a dead letter through a plugin, on the author's machine.
//!
//! It publishes nothing, and the dead letter stays. The run is in `signalbus_authoring::testing`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::{Exit, Failure, Output, open, print, print_json, read_config};
use super::engine;
use super::test::{details, document};
use signalbus_authoring::testing::{self, PluginTest, Suite};
use signalbus_core::signal::Outcome;

/// Runs the row of a dead letter through `plugin`, or else through the configured one, with the
/// settings and secrets of its signal type. The dead letter stays.
pub(crate) async fn run(path: &Path, id: i64, plugin: Option<PathBuf>, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    let outbox = open(&config)?;
    let letter = outbox.dead_letter(id).await?;
    let letter =
        letter.ok_or_else(|| Failure::new(Exit::Failed, format!("dead letter {id} not found; see `signalbus dead list`")))?;
    let signal = config.signals.iter().find(|signal| signal.name() == letter.signal).ok_or_else(|| {
        let text = format!("dead letter {id}: signal type \"{}\" is not configured in {}", letter.signal, path.display());
        Failure::new(Exit::Configuration, text)
    })?;
    let lane = outbox.signal_table(&signal.source).await?;
    let gone = || Failure::new(Exit::Failed, format!("dead letter {id}: its row is gone"));
    let row = lane.dead_signal(&letter).await?.ok_or_else(gone)?;
    let signal_type = lane.signal_type().clone();
    let suite = Suite::for_type(&letter.signal);
    let test = PluginTest::new(engine()?, &plugin.unwrap_or_else(|| signal.plugin.clone()), suite);
    let columns: Map<String, Value> =
        signal_type.columns.iter().zip(&row.values).map(|(column, value)| (column.name.clone(), testing::json(value))).collect();
    let signals = [row];
    let result = test.replay(&signal_type, &signals, signal.grants.on_paper(), signal.limits).await?;
    if output == Output::Json {
        let mut document = document(&result);
        (document["name"], document["row"]) = (signals[0].id.as_str().into(), columns.into());
        print_json(signal.grants.redact(&document.to_string()));
    } else {
        print(format_args!("signal {}", signals[0].id));
        print(signal.grants.redact(&format!("row {}", Value::from(columns))));
        details(&result).iter().for_each(|line| print(signal.grants.redact(line)));
        print("nothing was published, HTTP and TCP were refused; the dead letter stays");
    }
    let sent = matches!(result.verdict.as_deref(), Ok([Outcome::Sent | Outcome::Skip]));
    Ok(if sent { Exit::Done } else { Exit::Failed })
}
