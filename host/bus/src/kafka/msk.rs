//! Tokens for Amazon MSK with IAM: a request for its API, signed (Signature Version 4) with the credentials that the tools
//! of AWS use: environment, profile, SSO, web identity, container, or instance metadata.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider};
use reqsign_core::hash::{hex_hmac_sha256, hex_sha256, hmac_sha256};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, OsEnv, ProvideCredential as _};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use super::token::{NoToken, Token};

/// For how long a token can be used.
const LIFETIME: Duration = Duration::from_secs(900);
/// What a query of a signed request leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Signs tokens for the clusters of a region.
#[derive(Clone)]
pub(super) struct Msk {
    region: String,
    credentials: Arc<DefaultCredentialProvider>,
    context: Context,
}

impl Msk {
    pub(super) fn new(region: String, client: reqwest::Client) -> Self {
        let context = Context::new().with_file_read(TokioFileRead).with_http_send(ReqwestHttpSend::new(client)).with_env(OsEnv);
        Self { region, credentials: Arc::new(DefaultCredentialProvider::new()), context }
    }

    /// Returns a new token.
    ///
    /// # Errors
    /// There are no credentials.
    pub(super) async fn ask(&self) -> Result<Token, NoToken> {
        match self.credentials.provide_credential(&self.context).await {
            Ok(Some(credential)) => {
                let now = Timestamp::now();
                let user = credential.access_key_id.clone();
                let token = BASE64_URL_SAFE_NO_PAD.encode(self.signed(&credential, now));
                Ok(Token { token, user, end: now.as_system_time() + LIFETIME })
            }
            Ok(None) => Err(NoToken::Unavailable("no credentials of AWS are found".to_owned())),
            Err(error) => Err(NoToken::Unavailable(format!("credentials of AWS: {error}"))),
        }
    }

    fn signed(&self, credential: &Credential, now: Timestamp) -> String {
        const SERVICE: &str = "kafka-cluster";
        let (region, day, time) = (&self.region, now.format_date(), now.format_iso8601());
        let (host, scope) = (format!("kafka.{region}.amazonaws.com"), format!("{day}/{region}/{SERVICE}/aws4_request"));
        let encoded = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
        let session = credential.session_token.as_deref();
        let session = session.map(|token| format!("&X-Amz-Security-Token={}", encoded(token))).unwrap_or_default();
        // In the order of their names, as they are signed.
        let query = format!(
            "Action={}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={time}&X-Amz-Expires={}{session}\
             &X-Amz-SignedHeaders=host",
            encoded("kafka-cluster:Connect"),
            encoded(&format!("{}/{scope}", credential.access_key_id)),
            LIFETIME.as_secs(),
        );
        let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex_sha256(b""));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex_sha256(request.as_bytes()));
        let secret = format!("AWS4{}", credential.secret_access_key).into_bytes();
        let parts = [day.as_str(), region, SERVICE, "aws4_request"];
        let key = parts.iter().fold(secret, |key, part| hmac_sha256(&key, part.as_bytes()));
        let signature = hex_hmac_sha256(&key, text.as_bytes());
        let agent = concat!("signalbus%2F", env!("CARGO_PKG_VERSION"));
        format!("https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent={agent}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As AWS' own signer for Kafka signs it.
    #[test]
    fn a_token_is_signed_as_others_sign_it() {
        let credential = |session: Option<&str>| Credential {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: session.map(str::to_owned),
            expires_in: None,
        };
        crate::tls::provide();
        let msk = Msk::new("eu-west-1".into(), reqwest::Client::new());
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        let url = msk.signed(&credential(Some("session/token+1==")), now);
        let (request, rest) = url.split_once("&X-Amz-Signature=").unwrap();
        assert_eq!(
            request,
            "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20261127%2Feu-west-1%2Fkafka-cluster%2Faws4_request&X-Amz-Date=20261127T120000Z\
             &X-Amz-Expires=900&X-Amz-Security-Token=session%2Ftoken%2B1%3D%3D&X-Amz-SignedHeaders=host"
        );
        assert!(rest.starts_with("86c3f310e7da8b8261100dbbd0c8d5880ebc2f7d8e836c33daf4ef34abde4741&User-Agent="), "{rest}");
        assert!(!msk.signed(&credential(None), now).contains("Security-Token"));
    }
}
