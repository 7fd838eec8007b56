//! `plugin swap` and `plugin rollback`: change the plugin of a running relay, through its admin
//! listener.
//!
//! Here is only the request; `signalbus_relay::Live` does the work.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::super::{Exit, Failure, Output, print, print_json, read_config};
use signalbus_relay::config::Config;

/// Timeout of the request: longer than the relay takes to compile a plugin, or to give up on it.
const PATIENCE: Duration = Duration::from_secs(70);

/// A change of a signal type's plugin.
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
    let answer = post(&config, &address).await?;
    match output {
        Output::Json => print_json(&answer),
        Output::Text => print(format_args!("{signal} now uses {}", answer["digest"].as_str().unwrap_or_default())),
    }
    Ok(Exit::Done)
}

/// Sends a request to the relay that runs with this configuration.
async fn post(config: &Config, address: &str) -> Result<Value, Failure> {
    let Some(listen) = config.admin.listen else {
        let text = "`admin.listen` is not set, so the relay cannot be reached; set it, or send the relay a SIGHUP";
        return Err(Failure::new(Exit::Configuration, text));
    };
    let answered = tokio::time::timeout(PATIENCE, ask(listen, encoded(address), config.admin.token.as_deref())).await;
    let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
    let (status, body) = answered.map_err(|cause| {
        Failure::new(Exit::Unreachable, format!("no relay answers at {listen}: {cause}; is `signalbus run` running?"))
    })?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(answer);
    }
    let error = answer["error"].as_str().map_or_else(|| format!("the relay answered {status}"), str::to_owned);
    Err(Failure::new(Exit::Failed, error))
}

/// Sends one request over a new connection, and returns the status and body of the response.
async fn ask(listen: SocketAddr, address: String, token: Option<&str>) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(listen).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request = Request::post(address).header(HOST, listen.to_string());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

fn encoded(path: &str) -> String {
    const SPECIAL: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'_').remove(b'-').remove(b'.');
    percent_encoding::utf8_percent_encode(path, SPECIAL).to_string()
}
