//! Tokens for the login by OAUTHBEARER: from an OAuth endpoint, for the credentials of a client (RFC 6749, section 4.4);
//! or signed by `msk`.

use std::time::{Duration, SystemTime};

use rdkafka::client::OAuthToken;
use reqwest::{Certificate, Client, redirect::Policy};
use tokio::runtime::Handle;
use url::{Url, form_urlencoded};

use super::msk::Msk;
use crate::{ConnectionConfig, tls};
use signalbus_core::text;

/// The property of librdkafka with the endpoint.
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
/// And with the scope to ask for.
const SCOPE: &str = "sasl.oauthbearer.scope";

/// The longest answer of an endpoint, in bytes.
const LONGEST: usize = 256 << 10;
/// The mechanism of Amazon MSK.
const MSK: &str = "AWS_MSK_IAM";

/// Where the tokens of a connection come from.
#[derive(Clone)]
pub(super) struct Tokens {
    source: Source,
    /// For how long one may be waited for: the library reports no confirmation meanwhile.
    patience: Duration,
}

#[derive(Clone)]
enum Source {
    Endpoint(Endpoint),
    Msk(Msk),
}

/// A token, whom it is for, and when it ends.
pub(super) struct Token {
    pub(super) token: String,
    pub(super) user: String,
    pub(super) end: SystemTime,
}

/// An OAuth endpoint, and who asks it.
#[derive(Clone)]
struct Endpoint {
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
        let mechanism = config.query("mechanism");
        if mechanism.as_deref() == Some("OAUTHBEARER") {
            return Endpoint::new(config).map(|endpoint| Some(Self::of(config, Source::Endpoint(endpoint))));
        }
        if let Some((name, _)) = config.options.iter().find(|(name, _)| Self::take(name)) {
            return Err(format!("`options`: \"{name}\" is for `?mechanism=OAUTHBEARER` in the URL"));
        }
        if mechanism.as_deref() != Some(MSK) {
            return match config.query("region") {
                Some(_) => Err(format!("`?region=` is for `?mechanism={MSK}`")),
                None => Ok(None),
            };
        }
        if config.url.scheme() != "kafkas" || config.user().is_some() || config.password().is_some() {
            return Err(format!("`?mechanism={MSK}` is for kafkas:// without a user: AWS' own credentials are used"));
        }
        let variables = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
        let host = config.host().unwrap_or_default();
        let region = config.query("region").or_else(|| region_of(&host).map(str::to_owned)).or_else(variables);
        let region = region.ok_or_else(|| format!("`?mechanism={MSK}`: name the region of AWS with `&region=`"))?;
        // (What gives credentials within AWS has no certificate.)
        Ok(Some(Self::of(config, Source::Msk(Msk::new(region, client(None)?)))))
    }

    fn of(config: &ConnectionConfig, source: Source) -> Self {
        Self { source, patience: config.timeout / 3 }
    }

    /// Whether a mechanism needs no user in the URL.
    pub(super) fn is_msk(config: &ConnectionConfig) -> bool {
        config.query("mechanism").as_deref() == Some(MSK)
    }

    /// Returns a new token. Blocks.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn fetch(&self, runtime: &Handle) -> Result<OAuthToken, NoToken> {
        let asked = async {
            match &self.source {
                Source::Endpoint(endpoint) => endpoint.ask().await,
                Source::Msk(msk) => msk.ask().await,
            }
        };
        let source = match &self.source {
            Source::Endpoint(endpoint) => endpoint.endpoint.as_str(),
            Source::Msk(_) => "the credentials of AWS",
        };
        let late = |_| NoToken::Unavailable(format!("{source}: no token within {:.1} s", self.patience.as_secs_f64()));
        let asked = runtime.block_on(async { tokio::time::timeout(self.patience, asked).await });
        let Token { token, user, end } = asked.map_err(late)??;
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let lifetime_ms = i64::try_from(end.as_millis()).unwrap_or(i64::MAX);
        Ok(OAuthToken { token, principal_name: user, lifetime_ms })
    }
}

/// Returns the region in the name of a server of Amazon MSK.
fn region_of(host: &str) -> Option<&str> {
    let (_, rest) = host.strip_suffix(".amazonaws.com")?.rsplit_once(".kafka").filter(|(name, _)| !name.is_empty())?;
    rest.trim_start_matches("-serverless").strip_prefix('.').filter(|region| !region.contains('.'))
}

/// Returns an HTTP client that trusts these certificates, too.
fn client(ca: Option<&str>) -> Result<Client, String> {
    tls::provide();
    let authorities = Certificate::from_pem_bundle(ca.unwrap_or_default().as_bytes());
    Client::builder()
        .redirect(Policy::none())
        .tls_certs_merge(authorities.map_err(|error| format!("`ca`: {error}"))?)
        .build()
        .map_err(|error| error.to_string())
}

impl Endpoint {
    fn new(config: &ConnectionConfig) -> Result<Self, String> {
        let option = |wanted: &str| config.options.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
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
        let client = client(config.ca.as_deref())?;
        Ok(Self { client, endpoint, id, secret, scope: option(SCOPE).cloned() })
    }

    async fn ask(&self) -> Result<Token, NoToken> {
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
        let unavailable = |error: reqwest::Error| NoToken::Unavailable(cause(&error));
        let mut answer = request.send().await.map_err(unavailable)?;
        let (status, mut body) = (answer.status(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(NoToken::Unavailable(told(format!("{status}, and more than {LONGEST} bytes"))));
            }
        }
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status.as_u16(), body["access_token"].as_str()) {
            (200, Some(token)) => {
                let lifetime = Duration::from_secs(body["expires_in"].as_u64().unwrap_or(3600).clamp(1, 366 * 86_400));
                Ok(Token { token: token.to_owned(), user: self.id.clone(), end: asked + lifetime })
            }
            (408 | 425 | 429, _) => Err(NoToken::Unavailable(told(status.to_string()))),
            (400..=499, _) => {
                let said = [&body["error"], &body["error_description"]].map(|part| part.as_str().unwrap_or_default());
                let mut said = text::printable(&said.join(" ")).into_owned();
                text::cut(&mut said, 512);
                Err(NoToken::Refused(told(format!("{status}: {said}"))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_server_tells_its_region() {
        assert_eq!(region_of("b-1.orders.abc123.c2.kafka.eu-west-1.amazonaws.com"), Some("eu-west-1"));
        assert_eq!(region_of("boot-abc.c1.kafka-serverless.us-east-1.amazonaws.com"), Some("us-east-1"));
        for host in ["kafka.example.com", "localhost", "s3.eu-west-1.amazonaws.com", "kafka.amazonaws.com"] {
            assert_eq!(region_of(host), None, "{host}");
        }
    }
}
