//! Tokens for the login by OAUTHBEARER: from an OAuth endpoint, for the credentials of a client (RFC 6749, section 4.4).

use std::time::{Duration, SystemTime};

use rdkafka::client::OAuthToken;
use reqwest::{Certificate, Client, redirect::Policy};
use tokio::runtime::Handle;
use url::{Url, form_urlencoded};

use crate::{ConnectionConfig, tls};

/// The property of librdkafka with the endpoint.
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
/// And with the scope to ask for.
const SCOPE: &str = "sasl.oauthbearer.scope";

/// Where the tokens of a connection come from.
#[derive(Clone)]
pub(super) struct Tokens {
    client: Client,
    endpoint: Url,
    id: String,
    secret: String,
    scope: Option<String>,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum NoToken {
    /// The endpoint refuses it.
    Refused(String),
    /// There is no answer, or none about it.
    Unavailable(String),
}

impl Tokens {
    /// Returns whether a property is for the endpoint, and not for librdkafka.
    pub(super) fn take(property: &str) -> bool {
        [ENDPOINT, SCOPE].contains(&property)
    }

    /// Returns where tokens come from; `None` if the connection needs none.
    ///
    /// # Errors
    /// Something is missing, or cannot be used.
    pub(super) fn new(config: &ConnectionConfig) -> Result<Option<Self>, String> {
        let option = |wanted: &str| config.options.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        if config.query("mechanism").as_deref() != Some("OAUTHBEARER") {
            return match [ENDPOINT, SCOPE].into_iter().find(|name| option(name).is_some()) {
                Some(name) => Err(format!("`options`: \"{name}\" is for `?mechanism=OAUTHBEARER` in the URL")),
                None => Ok(None),
            };
        }
        let endpoint = option(ENDPOINT).and_then(|url| Url::parse(url).ok()).filter(|url| url.scheme() == "https");
        let endpoint = endpoint.ok_or_else(|| {
            format!(
                "`?mechanism=OAUTHBEARER` needs `options`: \"{ENDPOINT}\": the https:// URL that gives tokens to the client \
                 whose id and secret are in the URL"
            )
        })?;
        let (Some(id), Some(secret)) = (config.user(), config.password()) else {
            return Err("`?mechanism=OAUTHBEARER` needs the id and the secret of a client in the URL: `id:secret@`".into());
        };
        tls::provide();
        let authorities = Certificate::from_pem_bundle(config.ca.as_deref().unwrap_or_default().as_bytes());
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(config.timeout / 3)
            .tls_certs_merge(authorities.map_err(|error| format!("`ca`: {error}"))?)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Some(Self { client, endpoint, id, secret, scope: option(SCOPE).cloned() }))
    }

    /// Returns a new token. Blocks.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn fetch(&self, runtime: &Handle) -> Result<OAuthToken, NoToken> {
        runtime.block_on(self.ask())
    }

    async fn ask(&self) -> Result<OAuthToken, NoToken> {
        let told = |what: String| format!("{}: {what}", self.endpoint);
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let mut form = form_urlencoded::Serializer::new("grant_type=client_credentials".to_owned());
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let request = self
            .client
            .post(self.endpoint.clone())
            .basic_auth(encoded(&self.id), Some(encoded(&self.secret)))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.finish());
        let asked = SystemTime::now();
        let answer = request.send().await.map_err(|error| NoToken::Unavailable(cause(&error)))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| NoToken::Unavailable(cause(&error)))?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status.as_u16(), body["access_token"].as_str()) {
            (200, Some(token)) => {
                let lifetime = Duration::from_secs(body["expires_in"].as_u64().unwrap_or(3600).max(1));
                let end = asked.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + lifetime;
                let lifetime_ms = i64::try_from(end.as_millis()).unwrap_or(i64::MAX);
                Ok(OAuthToken { token: token.to_owned(), principal_name: self.id.clone(), lifetime_ms })
            }
            (408 | 425 | 429, _) => Err(NoToken::Unavailable(told(status.to_string()))),
            (400..=499, _) => {
                let said = [&body["error"], &body["error_description"]].map(|part| part.as_str().unwrap_or_default());
                Err(NoToken::Refused(told(format!("{status}: {}", said.join(" ")))))
            }
            _ => Err(NoToken::Unavailable(told(format!("{status}, and no token")))),
        }
    }
}

/// Returns an error with its innermost cause.
fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    match causes.last() {
        Some(last) => format!("{error}: {last}"),
        None => error.to_string(),
    }
}
