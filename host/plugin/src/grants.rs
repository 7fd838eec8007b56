//! What a signal type's configuration grants to its plugin.
//!
//! A plugin must never get anything that is not named here, and a secret must never appear in text.
//! `http`, `tcp` and `producer` check the grants at each use.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::connection_grant::ConnectionGrant;
use super::egress::{EgressPolicy, Network};
use super::endpoints::{HttpOrigin, TcpPeer};

/// The settings, secrets and capabilities of a signal type's plugin; it has no others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Returned by `config.get`.
    pub settings: Vec<(String, String)>,
    /// Returned by `config.get-secret`; never shown.
    pub secrets: Vec<(String, String)>,
    /// The connections that the plugin may publish through.
    pub connections: Vec<ConnectionGrant>,
    /// Origins that the plugin may call: scheme, host, optional port.
    pub http: Vec<HttpOrigin>,
    /// Addresses that the plugin may connect to: host and port.
    pub tcp: Vec<TcpPeer>,
    /// Networks that granted names may resolve to in addition to the public Internet.
    pub networks: Vec<Network>,
    /// PEM certificates of private authorities to trust in addition to the system's.
    pub ca: Option<Arc<str>>,
}

impl Grants {
    /// Shorter secrets are not redacted: they would hide innocent text.
    const SHORTEST_HIDDEN: usize = 4;

    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        lookup(&self.settings, key)
    }

    pub(super) fn secret(&self, key: &str) -> Option<&str> {
        lookup(&self.secrets, key)
    }

    /// Returns the addresses that granted names may resolve to.
    pub(super) fn egress(&self) -> EgressPolicy {
        EgressPolicy::new(self.networks.clone())
    }

    /// Replaces each `{{secret:NAME}}` in a text with that secret.
    ///
    /// # Errors
    /// Returns the first name that is not a secret.
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

    /// Returns grants with the same settings and secrets, but with endpoints that do not exist: a plugin
    /// loads whatever it imports, and reaches nobody. RFC 6761 reserves the names for this.
    #[must_use]
    pub fn on_paper(&self) -> Self {
        let http = "https://plugin.invalid".parse().into_iter().collect();
        let tcp = "plugin.invalid:1".parse().into_iter().collect();
        Self { http, tcp, networks: Vec::new(), ..self.clone() }
    }

    /// Redacts the secrets that a plugin may have written into a text, such as a log line or a reason.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in self.hidden() {
            if text.contains(&*secret) {
                text = Cow::Owned(text.replace(&*secret, "[secret]"));
            }
        }
        text
    }

    /// Returns what is redacted, longest first, because one secret may be a part of another.
    fn hidden(&self) -> Vec<Cow<'_, str>> {
        let whole = self.secrets.iter().map(|(_, secret)| secret.as_str());
        // Standard streams come line by line.
        let lines = whole.clone().filter(|secret| secret.contains('\n')).flat_map(str::lines).map(str::trim_end);
        // A plugin may quote one, as in JSON.
        let quoted = whole.clone().filter(|secret| secret.contains(|c: char| c.is_control() || c == '"' || c == '\\'));
        let quoted = quoted.map(|secret| Cow::Owned(secret.escape_debug().to_string()));
        let mut hidden: Vec<Cow<'_, str>> = whole.chain(lines).map(Cow::Borrowed).chain(quoted).collect();
        hidden.retain(|secret| secret.len() >= Self::SHORTEST_HIDDEN);
        hidden.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        hidden
    }

    /// Returns the length of the longest text that is redacted.
    pub(super) fn longest_secret(&self) -> usize {
        self.hidden().first().map_or(0, |secret| secret.len())
    }

    /// Returns where to cut a line after at most `most` bytes, within no secret and no character. The line
    /// is longer by as much as the longest secret.
    pub(super) fn cut_between_secrets(&self, line: &[u8], most: usize) -> usize {
        let mut cut = most;
        while cut > most.saturating_sub(4) && line.get(cut).is_some_and(|byte| byte & 0xc0 == 0x80) {
            cut -= 1;
        }
        let hidden = self.hidden();
        let across = |cut: usize| {
            let starts = hidden.iter().flat_map(|secret| {
                let from = (cut + 1).saturating_sub(secret.len());
                (from..cut).filter(|start| line.get(*start..).is_some_and(|rest| rest.starts_with(secret.as_bytes())))
            });
            starts.min()
        };
        while let Some(start) = across(cut) {
            cut = start;
        }
        // A secret that fills a line is logged, and redacted, as a whole.
        if cut > 0 {
            cut
        } else {
            hidden.iter().find(|secret| line.starts_with(secret.as_bytes())).map_or(most, |secret| secret.len())
        }
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
    fn secrets_are_redacted() {
        assert_eq!(grants().redact("401 for s3cr3t, 1 try"), "401 for [secret], 1 try");
        assert!(matches!(grants().redact("fine"), Cow::Borrowed("fine")));
    }

    #[test]
    fn secrets_are_redacted_however_they_are_quoted() {
        let key = ("key".to_owned(), "pass\"word\\\t".to_owned());
        let grants = Grants { secrets: vec![key], ..Grants::default() };
        assert_eq!(grants.redact("pass\"word\\\t is it"), "[secret] is it");
        assert_eq!(grants.redact(r#"{"key":"pass\"word\\\t"}"#), r#"{"key":"[secret]"}"#);
    }

    #[test]
    fn no_secret_is_cut_in_half() {
        let text = b"0123s3cr3ts3cr3t9";
        let cuts = [4, 5, 9, 10, 11, 16].map(|most| grants().cut_between_secrets(text, most));
        assert_eq!(cuts, [4, 4, 4, 10, 10, 16]);
        assert_eq!(grants().cut_between_secrets(b"s3cr3t...", 3), 6);
        assert_eq!(grants().cut_between_secrets("aé....".as_bytes(), 2), 1);
    }

    #[test]
    fn grants_on_paper_reach_nobody() {
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
    fn multi_line_secrets_are_redacted_line_by_line() {
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
    fn placeholders_within_a_secret_are_not_filled_in() {
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
