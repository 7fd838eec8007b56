//! Signatures according to Standard Webhooks: <https://www.standardwebhooks.com>. A key must never
//! appear in an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac_sha256::HMAC;

/// The keys to sign with: more than one while a key is being replaced.
#[derive(Debug)]
pub struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// Parses keys of the form `whsec_…`, separated by spaces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault =
            || "secret \"signing_key\" is not a key; write \"whsec_\" and the key in base64, or several separated by spaces";
        let key = |text: &str| {
            let key = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
            (!key.is_empty()).then_some(key)
        };
        let keys: Vec<Vec<u8>> = text.split_whitespace().map(key).collect::<Option<_>>().ok_or_else(fault)?;
        if keys.is_empty() { Err(fault().to_owned()) } else { Ok(Self(keys)) }
    }

    /// Returns the value of the header `webhook-signature`: one signature per key.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac = HMAC::new(key);
            mac.update(format!("{id}.{timestamp}."));
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the specification.
    #[test]
    fn signatures_match_the_specification() {
        let keys = Keys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_key_signs() {
        let (one, two) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let both = Keys::parse(&format!("{one} {two}")).unwrap().sign("id", 1, b"body");
        let each = [one, two].map(|key| Keys::parse(key).unwrap().sign("id", 1, b"body"));
        assert_eq!(both, each.join(" "));
    }

    #[test]
    fn invalid_keys_are_refused_and_not_shown() {
        for text in ["", " ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_hidden!", "whsec_MfKQ9r8G hidden"] {
            let error = Keys::parse(text).unwrap_err();
            assert!(error.starts_with("secret \"signing_key\" is not a key; write") && !error.contains("hidden"), "{error}");
        }
    }
}
