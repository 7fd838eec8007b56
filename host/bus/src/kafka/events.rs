//! What the client library reports outside of deliveries, and how it gets tokens.
//!
//! Runs in the library's own threads: must never wait for long. Next: `token`.

use std::error::Error;
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientContext, Statistics};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::token::{NoToken, Tokens};

/// Errors that the library reports outside of deliveries.
#[derive(Clone, Default)]
pub(super) struct ClientState {
    /// Why the servers refuse the login.
    pub(super) refused: Option<String>,
    /// The last connection error, or why messages of a topic are not confirmed; and when it occurred.
    pub(super) fault: Option<(String, Instant)>,
    /// Whether the last token could not be fetched, though it may be later.
    waits_for_token: bool,
    /// For how long the servers last delayed requests that exceed a quota, and when.
    pub(super) throttled: Option<(Duration, Instant)>,
}

/// Receives the library's errors, and gives it tokens.
#[derive(Clone)]
pub(super) struct ClientEvents {
    pub(super) state: watch::Sender<ClientState>,
    pub(super) tokens: Option<Tokens>,
    pub(super) runtime: Handle,
}

impl ClientContext for ClientEvents {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self.tokens.as_ref().ok_or("the URL names no `?mechanism=OAUTHBEARER`")?;
        let token = tokens.fetch(&self.runtime);
        let unavailable = matches!(token, Err(NoToken::Unavailable(_)));
        self.state.send_modify(|state| state.waits_for_token = unavailable);
        token.map_err(|(NoToken::Refused(reason) | NoToken::Unavailable(reason))| reason.replace('\0', " ").into())
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // (So a server answers who logs in again within a second.)
        let too_soon = reason.contains("Request not valid in current SASL state");
        self.state.send_modify(|state| match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) if !too_soon && !state.waits_for_token => {
                state.refused = Some(reason.to_owned());
            }
            // The library reports its cause first.
            Some(Code::AllBrokersDown) if state.fault.is_some() => {}
            _ => state.fault = Some((reason.to_owned(), Instant::now())),
        });
    }

    fn stats(&self, statistics: Statistics) {
        let throttles = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        let longest = throttles.map(|window| u64::try_from(window.max).unwrap_or_default()).max().unwrap_or_default();
        if longest > 0 {
            self.state.send_modify(|state| state.throttled = Some((Duration::from_millis(longest), Instant::now())));
        }
    }

    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}
