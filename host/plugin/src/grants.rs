//! What a signal type's configuration gives to its plugin.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::egress::{EgressPolicy, Network};
use super::endpoints::{HttpOrigin, TcpPeer};

/// What a signal type's configuration gives to its plugin; nothing is given that is not named here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// What `config.get` reads.
    pub settings: Vec<(String, String)>,
    /// What `config.get-secret` reads; never shown.
    pub secrets: Vec<(String, String)>,
    /// Names of the connections that the plugin may publish through.
    pub connections: Vec<String>,
    /// Origins that the plugin may call: scheme, host, optional port.
    pub http: Vec<HttpOrigin>,
    /// Addresses that the plugin may connect to: host and port.
    pub tcp: Vec<TcpPeer>,
    /// Networks that are no part of the public Internet, and that granted names may lead to.
    pub networks: Vec<Network>,
    /// Certificates in PEM form of private authorities, which servers may be certified by beside
    /// the system's.
    pub ca: Option<Arc<str>>,
}

impl Grants {
    /// Shorter secrets would blot out innocent text.
    const SHORTEST_HIDDEN: usize = 4;

    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        lookup(&self.settings, key)
    }

    pub(super) fn secret(&self, key: &str) -> Option<&str> {
        lookup(&self.secrets, key)
    }

    /// What granted names may lead to.
    pub(super) fn egress(&self) -> EgressPolicy {
        EgressPolicy::new(self.networks.clone())
    }

    /// The text with a secret in the place of each `{{secret:NAME}}`.
    ///
    /// # Errors
    /// The name that no secret has.
    pub(super) fn fill_in<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, String> {
        const BEGIN: &str = "{{secret:";
        let mut filled = Cow::Borrowed(text);
        let mut rest = text;
        while let Some((before, name, after)) =
            rest.split_once(BEGIN).and_then(|(before, rest)| rest.split_once("}}").map(|(name, after)| (before, name, after)))
        {
            let secret = self.secret(name).ok_or_else(|| name.to_owned())?;
            let filled = filled.to_mut();
            filled.truncate(filled.len() - rest.len());
            filled.extend([before, secret, after]);
            rest = after;
        }
        Ok(filled)
    }

    /// Everything that the plugin may read, and nobody whom it may egress: whatever it imports, it
    /// loads, and is refused at each use. The names lead nowhere, by RFC 6761.
    #[must_use]
    pub fn on_paper(&self) -> Self {
        let http = "https://plugin.invalid".parse().into_iter().collect();
        let tcp = "plugin.invalid:1".parse().into_iter().collect();
        Self { http, tcp, networks: Vec::new(), ..self.clone() }
    }

    /// The text without the secrets that a plugin may have written into it: a log line, a reason.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        // The longest first: one may be a part of another.
        let whole = self.secrets.iter().map(|(_, secret)| secret.as_str());
        // Standard streams come line by line.
        let lines = whole.clone().filter(|secret| secret.contains('\n')).flat_map(str::lines).map(str::trim_end);
        let mut secrets: Vec<&str> = whole.chain(lines).collect();
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in secrets {
            if secret.len() >= Self::SHORTEST_HIDDEN && text.contains(secret) {
                text = Cow::Owned(text.replace(secret, "[secret]"));
            }
        }
        text
    }
}

fn lookup<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

impl fmt::Debug for Grants {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets: Vec<&str> = self.secrets.iter().map(|(key, _)| key.as_str()).collect();
        formatter
            .debug_struct("Grants")
            .field("settings", &self.settings)
            .field("secrets", &secrets)
            .field("connections", &self.connections)
            .field("http", &self.http)
            .field("tcp", &self.tcp)
            .field("networks", &self.networks)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Grants {
        Grants {
            settings: vec![("url".into(), "https://shop".into())],
            secrets: vec![("token".into(), "s3cr3t".into()), ("pin".into(), "1".into())],
            ..Grants::default()
        }
    }

    #[test]
    fn debug_names_secrets_but_never_shows_them() {
        let shown = format!("{:?}", grants());
        assert!(shown.contains("token") && !shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn secrets_are_struck_from_text() {
        assert_eq!(grants().redact("401 for s3cr3t, 1 try"), "401 for [secret], 1 try");
        assert!(matches!(grants().redact("fine"), Cow::Borrowed("fine")));
    }

    #[test]
    fn on_paper_nobody_is_reached() {
        let granted = Grants {
            http: vec!["https://shop.example".parse().unwrap()],
            tcp: vec!["smtp.example:25".parse().unwrap()],
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            ..grants()
        };
        let shown = format!("{:?}", granted.on_paper());
        assert!(!shown.contains("example") && !shown.contains("10.0.0.0"), "{shown}");
        assert!(!granted.on_paper().http.is_empty() && !granted.on_paper().tcp.is_empty(), "it has to load");
        assert!(!grants().on_paper().http.is_empty() && grants().on_paper().settings == grants().settings);
    }

    #[test]
    fn secrets_of_many_lines_are_hidden_line_by_line() {
        let key = ("key".to_owned(), "-----BEGIN KEY-----\r\nMIIBVgIB\n}\n".to_owned());
        let grants = Grants { secrets: vec![key], ..Grants::default() };
        assert_eq!(grants.redact("read MIIBVgIB, then }"), "read [secret], then }");
        assert_eq!(grants.redact("-----BEGIN KEY-----\r\nMIIBVgIB\n}\n"), "[secret]");
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert!(matches!(grants().fill_in("plain {{ text }}"), Ok(Cow::Borrowed("plain {{ text }}"))));
        assert_eq!(grants().fill_in("Bearer {{secret:token}}").unwrap(), "Bearer s3cr3t");
        assert_eq!(grants().fill_in("{{secret:pin}}:{{secret:token}}!").unwrap(), "1:s3cr3t!");
        assert_eq!(grants().fill_in("{{secret:url}}"), Err("url".into()));
        assert_eq!(grants().fill_in("{{secret:pin}} {{secret:none}}"), Err("none".into()));
        assert_eq!(grants().fill_in("{{secret:open").unwrap(), "{{secret:open");
    }

    #[test]
    fn a_secret_is_not_filled_in_again() {
        let nested = [("a", "{{secret:b}}"), ("b", "hidden")].map(|(key, value)| (key.into(), value.into()));
        let grants = Grants { secrets: nested.to_vec(), ..Grants::default() };
        assert_eq!(grants.fill_in("{{secret:a}}").unwrap(), "{{secret:b}}");
    }

    #[test]
    fn settings_and_secrets_do_not_mix() {
        assert_eq!(grants().setting("url"), Some("https://shop"));
        assert_eq!(grants().setting("token"), None);
        assert_eq!(grants().secret("token"), Some("s3cr3t"));
    }
}
