//! The configuration of a connection: its URL, and what is asked of it.
//!
//! Must never be shown: the URL may contain a password. Next: `scheme`, which makes a bus of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::several::{first_server, refuse_repeated};
#[cfg(feature = "tls")]
use super::tls;

/// The configuration of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub name: String,
    /// May contain a password: must not be shown.
    pub(super) url: Url,
    /// The further servers in the URL, as `host:port`.
    pub(super) others: Vec<String>,
    /// PEM certificates to trust in addition to the system's.
    pub(super) ca: Option<String>,
    /// Time limit of a call: for connecting, and for the bus to confirm its messages.
    pub(super) timeout: Duration,
    /// Further properties of the client library; only some buses take them.
    pub(super) options: Vec<(String, String)>,
    /// Where relative paths start.
    pub(super) folder: PathBuf,
}

impl ConnectionConfig {
    /// Parses and checks the configuration of a connection; `ca` is PEM text. Paths in `url` and `options` are
    /// relative to `folder`.
    ///
    /// # Errors
    /// The URL or another value cannot be used. The text does not contain the URL, which may contain a
    /// password.
    pub fn new(
        name: &str,
        url: &str,
        ca: Option<String>,
        timeout: Duration,
        options: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self, String> {
        refuse_repeated(url)?;
        let (url, others) = first_server(url);
        let url = Url::parse(&url).map_err(|error| format!("invalid URL: {error}"))?;
        if timeout < Duration::from_millis(100) {
            return Err("`timeout` is shorter than 100ms".into());
        }
        let config = Self { name: name.to_owned(), url, others, ca, timeout, options, folder: folder.to_owned() };
        config.refuse_ignored()?;
        config.bus().map(|_| config)
    }

    /// Returns the time limit of a call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Checks that no part of the URL would be ignored.
    fn refuse_ignored(&self) -> Result<(), String> {
        let scheme = self.url.scheme();
        for server in &self.others {
            let url = Url::parse(&format!("{scheme}://{server}")).map_err(|error| format!("server \"{server}\": {error}"))?;
            if url.host_str().is_none_or(str::is_empty) {
                return Err(format!("server \"{server}\": empty host"));
            }
        }
        if self.url.fragment().is_some() {
            return Err("the URL has a fragment, which means nothing: write `%23` for a `#` in a password".into());
        }
        if ["kafka", "kafkas", "mqtt", "mqtts", "nats", "tls"].contains(&scheme) && !["", "/"].contains(&self.url.path()) {
            return Err(format!("{scheme}:// takes no path"));
        }
        let mut names: Vec<String> = self.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the URL has parameter \"?{}=\" twice", pair[0])),
            None => Ok(()),
        }
    }

    /// Returns the user name, or the token in its place.
    pub(super) fn user(&self) -> Option<String> {
        (!self.url.username().is_empty()).then(|| decoded(self.url.username()))
    }

    pub(super) fn password(&self) -> Option<String> {
        self.url.password().map(decoded)
    }

    /// Returns the secrets to redact, both percent-encoded and decoded.
    pub(super) fn secrets(&self) -> Vec<String> {
        let is_secret = |name: &str| name.contains("password") || name.contains("secret");
        let options = self.options.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone());
        // For NATS, a user without a password is a token.
        let token = self.url.username();
        let is_token = ["nats", "tls"].contains(&self.url.scheme()) && self.url.password().is_none();
        let written = self.url.password().or(is_token.then_some(token)).unwrap_or_default();
        let parameters = self.url.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let parameters = parameters.filter(|(name, _)| is_secret(name)).flat_map(|(_, value)| [value.to_owned(), decoded(value)]);
        options.chain(parameters).chain([written.to_owned(), decoded(written)]).collect()
    }

    /// Returns the host of the first server; an IPv6 address without its brackets.
    pub(super) fn host(&self) -> Option<String> {
        let host = self.url.host_str().filter(|host| !host.is_empty())?;
        Some(decoded(host.trim_start_matches('[').trim_end_matches(']')))
    }

    /// Returns the servers as `host:port`, for a bus that can connect to any of them.
    pub(super) fn servers(&self, port: u16) -> Vec<String> {
        let first = format!("{}:{}", self.url.host_str().unwrap_or("localhost"), self.url.port().unwrap_or(port));
        let others = self.others.iter().map(|server| match server.ends_with(']') || !server.contains(':') {
            true => format!("{server}:{port}"),
            false => server.clone(),
        });
        std::iter::once(first).chain(others).collect()
    }

    /// Returns the first server as `host:port`.
    pub(super) fn server(&self, port: u16) -> String {
        self.servers(port).remove(0)
    }

    /// Returns why there is no TLS connection to the first server, if the URL asks for one.
    #[cfg(feature = "tls")]
    pub(super) async fn explain(&self) -> Option<String> {
        let port = match self.url.scheme() {
            "amqps" => 5671,
            "kafkas" => 9092,
            "mqtts" => 8883,
            "rediss" | "rediss-cluster" => 6379,
            "rediss-sentinel" => 26379,
            // With others, TLS begins later.
            _ => return None,
        };
        // Properties of the client library may have a word in this.
        let is_known = self.options.iter().all(|(name, _)| !name.starts_with("ssl."));
        let (host, port) = (self.host().filter(|_| is_known)?, self.url.port().unwrap_or(port));
        // A type's own timeout is a quarter longer, of which a half is left for calls.
        tls::explain(&host, port, self.ca.as_deref(), self.timeout / 10).await
    }

    #[cfg(not(feature = "tls"))]
    pub(super) async fn explain(&self) -> Option<String> {
        None
    }

    /// Returns a query parameter of the URL.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Checks that the URL has only known query parameters.
    ///
    /// # Errors
    /// The URL has a parameter that is not in `known`.
    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<(), String> {
        match self.url.query_pairs().find(|(key, _)| !known.contains(&key.as_ref())) {
            Some((key, _)) => Err(format!("unknown parameter \"?{key}=\" (known: {})", known.join(", "))),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, ca: Option<&str>, options: &[(&str, &str)]) -> Result<ConnectionConfig, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ConnectionConfig::new("b", url, ca.map(str::to_owned), Duration::from_secs(1), options, Path::new("/etc"))
    }

    #[cfg(all(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
    #[test]
    fn configuration_errors_do_not_show_secrets() {
        for (url, words) in [
            ("kafka://u:hunter2@h:x", "invalid URL: invalid port number"),
            ("mqtt://u:hunter2@a,b", "mqtt:// takes one server, not several"),
            ("rediss://u:hunter2@h", "`ca` contains no certificate"),
            ("redis://u:hunter2@h", "`ca` is for rediss://, not redis://"),
            ("tls://u:hunter2@h?tls=no", "unknown parameter \"?tls=\" (known: credentials)"),
            ("kafka://h,h:x", "server \"h:x\": invalid port number"),
            ("kafka://h,", "server \"\": empty host"),
            ("kafka://u:hunter2@h/orders", "kafka:// takes no path"),
            ("rediss://u:hunter2@h#insecure", "the URL has a fragment"),
            ("tls://h?credentials=/a&credentials=/b", "the URL has parameter \"?credentials=\" twice"),
            ("nats://u:hunter2@h?credentials=/own", "NATS takes either a user or `?credentials=`, not both"),
            ("redis-cluster://u:hunter2@h", "`ca` is for rediss-cluster://, not redis-cluster://"),
            ("rediss-cluster://u:hunter2@h/3", "rediss-cluster:// takes no path: a cluster has only database 0"),
            ("redis-cluster://u:hunter2@a,redis-cluster://b", "the URL names the scheme of each server: write it once"),
            ("redis-cluster://u:hunter2@a:1,u:hunter2@b:2", "the URL names a user for each server: write it once"),
            ("redis-cluster://u:hunter2@a:1,b:x", "server \"b:x\": invalid port number"),
            ("redis-cluster://u:hunter2@a:1,", "server \"\": empty host"),
            (
                "rediss-sentinel://u:hunter2@a,b",
                "rediss-sentinel:// needs the name of the master: rediss-sentinel://host:26379/mymaster",
            ),
            ("rediss-sentinel://h/m?sentinel_pasword=hunter2", "unknown parameter \"?sentinel_pasword=\" (known: "),
            ("rediss://u:hunter2@h?replicas=two", "`?replicas=two` is not a number"),
            ("redis://u:hunter2@a,b", "redis:// takes one server, not several"),
            ("stomp://u:hunter2@h", "unknown bus \"stomp://\" (known: amqp://, "),
        ] {
            let fault = config(url, Some(""), &[]).unwrap_err();
            assert!(fault.starts_with(words) && !fault.contains("hunter2"), "{url}: {fault}");
        }
        let fault = config("redis-sentinel://h/m/x", None, &[]).unwrap_err();
        assert!(fault.contains("database"), "{fault}");
        let fault = config("redis://h", None, &[("a", "b")]).unwrap_err();
        assert_eq!(fault, "Redis takes no `options`; configure it in the URL");
    }

    #[cfg(all(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
    #[test]
    fn tokens_and_passwords_are_secrets() {
        let secrets = |url: &str, options: &[(&str, &str)]| config(url, None, options).unwrap().secrets();
        assert_eq!(secrets("nats://to%20ken@h", &[]), ["to%20ken", "to ken"]);
        assert_eq!(secrets("mqtt://user@h", &[]), ["", ""]);
        let sentinel = "redis-sentinel://u:p@a,b/m?sentinel_username=v&sentinel_password=q%20r";
        assert_eq!(secrets(sentinel, &[]), ["q%20r", "q r", "p", "p"]);
        assert_eq!(secrets("kafka://u:p@h", &[("ssl.key.password", "q"), ("linger.ms", "1")]), ["q", "p", "p"]);
    }
}
