//! `plugin swap` and `plugin rollback`: asks the running relay, through its admin listener.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::{Exit, Failure, Output, print, read_config};
use crate::config::Config;

/// What to do with the plugin of a signal type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Swap,
    RollBack,
}

pub(crate) async fn change(path: &Path, signal: &str, change: Change, output: Output) -> Result<Exit, Failure> {
    let config = read_config(path)?;
    config.chosen(&[signal.to_owned()], &[]).map_err(|text| Failure::new(Exit::Usage, text))?;
    let address = match change {
        Change::Swap => format!("/api/v1/signals/{signal}/plugin"),
        Change::RollBack => format!("/api/v1/signals/{signal}/plugin/rollback"),
    };
    let answer = tokio::task::spawn_blocking(move || post(&config, &address)).await;
    let answer = answer.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
    match output {
        Output::Json => print(answer),
        Output::Text => print(format_args!("{signal} is sent by {}", answer["digest"].as_str().unwrap_or_default())),
    }
    Ok(Exit::Done)
}

/// Asks the relay that runs with this configuration.
fn post(config: &Config, address: &str) -> Result<Value, Failure> {
    let Some(listen) = config.admin.listen else {
        let text = "there is no `admin.listen` to reach the relay by; add it, or send the relay a SIGHUP";
        return Err(Failure::new(Exit::Configuration, text));
    };
    let settings = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(70))).http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(settings.build());
    let mut request = agent.post(format!("http://{listen}{}", encoded(address)));
    if let Some(token) = &config.admin.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let unreachable = |error: ureq::Error| {
        Failure::new(Exit::Unreachable, format!("no relay answers at {listen}: {error}; is `signalbus run` running?"))
    };
    let mut response = request.send_empty().map_err(unreachable)?;
    let text = response.body_mut().read_to_string().map_err(unreachable)?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if response.status().is_success() {
        return Ok(answer);
    }
    let error = answer["error"].as_str().map_or_else(|| format!("the relay answered {}", response.status()), str::to_owned);
    Err(Failure::new(Exit::Failed, error))
}

fn encoded(path: &str) -> String {
    const SPECIAL: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'_').remove(b'-').remove(b'.');
    percent_encoding::utf8_percent_encode(path, SPECIAL).to_string()
}
