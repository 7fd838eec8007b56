//! The admin listener: health, metrics, status, and requests that change a running relay.
//!
//! Never shows secrets, and changes nothing without the token if there is one. Next: `serve`, the
//! connections; `exporter`, the metrics; [`Live`], which does the work.

mod exporter;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::Live;
pub use exporter::Meters;
use signalbus_outbox::Selection;

pub use serve::Listener;

/// Time limit of a request. A swap compiles, hence not shorter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size of a request body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The state shared by the handlers.
#[derive(Clone)]
struct AdminState {
    live: Arc<Live>,
    meters: Meters,
    token: Option<Arc<str>>,
}

/// An error response: a status and a message.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Returns the routes of the listener.
fn router(live: Arc<Live>, meters: Meters, token: Option<&str>) -> Router {
    let state = AdminState { live, meters, token: token.map(Into::into) };
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/wake", post(wake))
        .route("/api/v1/signals/{signal}/plugin", post(swap))
        .route("/api/v1/signals/{signal}/plugin/rollback", post(roll_back))
        .route("/api/v1/dead/redrive", post(redrive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Limits the time of a request, and authorizes requests that change something: with the token or, if there is
/// none, only if they do not come from a web page.
async fn guard(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let refused = changes.then(|| refusal(&state, request.headers())).flatten();
    if let Some(refused) = refused {
        return refused.into_response();
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused(StatusCode::GATEWAY_TIMEOUT, format!("request took longer than {REQUEST_TIMEOUT:?}")).into_response(),
    }
}

fn refusal(state: &AdminState, headers: &HeaderMap) -> Option<Refused> {
    match &state.token {
        Some(token) => {
            let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            let admitted = given.is_some_and(|given| same(given, token.as_bytes()));
            let text = "token missing or wrong; send the header `Authorization: Bearer TOKEN` with the configured `admin.token`";
            (!admitted).then(|| Refused(StatusCode::UNAUTHORIZED, text.into()))
        }
        None if headers.contains_key(ORIGIN) => {
            Some(Refused(StatusCode::FORBIDDEN, "requests from web pages require an `admin.token`".into()))
        }
        None => None,
    }
}

/// Compares in a time that does not reveal where two texts differ.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    given.len() == wanted.len() && given.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

async fn ready(State(state): State<AdminState>) -> Response {
    let problems = state.live.problems();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": problems.is_empty(), "troubles": problems }))).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    state.live.measure();
    ([("content-type", "text/plain; version=0.0.4")], state.meters.render()).into_response()
}

async fn status(State(state): State<AdminState>) -> Response {
    Json(state.live.status()).into_response()
}

#[derive(Deserialize)]
struct Wake {
    signal: Option<String>,
}

async fn wake(State(state): State<AdminState>, Query(wake): Query<Wake>) -> Result<Response, Refused> {
    let woken = state.live.wake(wake.signal.as_deref()).map_err(not_found)?;
    Ok(Json(json!({ "woken": woken })).into_response())
}

async fn swap(State(state): State<AdminState>, Path(signal): Path<String>) -> Result<Response, Refused> {
    match state.live.swap(&signal).await.map_err(not_found)? {
        Ok(digest) => Ok(Json(json!({ "digest": digest })).into_response()),
        Err(error) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
    }
}

async fn roll_back(State(state): State<AdminState>, Path(signal): Path<String>) -> Result<Response, Refused> {
    match state.live.roll_back(&signal).map_err(not_found)? {
        Some(digest) => Ok(Json(json!({ "digest": digest })).into_response()),
        None => Err(Refused(StatusCode::CONFLICT, format!("signal type \"{signal}\" has no previous plugin generation"))),
    }
}

/// Selects dead letters: by number, by signal type, or all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Letters {
    #[serde(default)]
    ids: Vec<i64>,
    signal: Option<String>,
    #[serde(default)]
    all: bool,
}

async fn redrive(State(state): State<AdminState>, Json(letters): Json<Letters>) -> Result<Response, Refused> {
    let unreachable = |error: signalbus_outbox::Error| Refused(StatusCode::BAD_GATEWAY, error.to_string());
    let outbox = state.live.outbox();
    let redriven = match letters {
        Letters { ids, signal: None, all: false } if !ids.is_empty() => {
            let mut found = Vec::new();
            for id in ids {
                let missing = || Refused(StatusCode::NOT_FOUND, format!("dead letter {id} not found"));
                found.push(outbox.dead_letter(id).await.map_err(unreachable)?.ok_or_else(missing)?);
            }
            state.live.redrive(&found).await
        }
        Letters { ids, signal, all } if ids.is_empty() && all != signal.is_some() => {
            let selection = Selection { signals: signal.into_iter().collect(), ..Selection::default() };
            state.live.redrive_selected(&selection).await
        }
        _ => {
            let text = "invalid body; send one of {\"ids\": [1, 2]}, {\"signal\": \"NAME\"} and {\"all\": true}";
            return Err(Refused(StatusCode::BAD_REQUEST, text.into()));
        }
    };
    let redriven = redriven.map_err(unreachable)?;
    Ok(Json(json!({ "redriven": redriven.redriven, "failed": redriven.failed })).into_response())
}

fn not_found(error: crate::Unknown) -> Refused {
    Refused(StatusCode::NOT_FOUND, error.to_string())
}
