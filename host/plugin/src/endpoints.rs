//! The endpoints that a plugin may connect to, as the configuration names them.
//!
//! Compared in normalised form only, never as text. The addresses that their names resolve to are
//! checked in `egress`.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// Scheme, host and port of an HTTP server, as in `https://shop.example`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpOrigin {
    scheme: String,
    host: Host,
    port: u16,
}

/// Host and port of a TCP server, as in `smtp.example:587`.
#[derive(Clone, PartialEq, Eq)]
pub struct TcpPeer {
    pub(super) host: Host,
    pub(super) port: u16,
}

impl HttpOrigin {
    /// Returns the origin of a URL; `None` if it is not an HTTP URL, or contains a user or password.
    pub(super) fn from_url(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = undotted(url.host()?.to_owned());
        Some(Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }
}

/// Removes the final dot of a fully qualified name.
pub(super) fn undotted(host: Host) -> Host {
    match host {
        Host::Domain(name) if name.ends_with('.') => Host::Domain(name.trim_end_matches('.').to_owned()),
        host => host,
    }
}

impl FromStr for HttpOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |cause: &str| format!("\"{text}\" {cause}; write \"https://shop.example\" or \"http://127.0.0.1:8080\"");
        let url = Url::parse(text).map_err(|_| wrong("is not an HTTP origin"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("starts with neither https:// nor http://"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a path, but grants are for whole hosts"));
        }
        if url.host_str().is_some_and(|host| host.contains('*')) {
            return Err(wrong("has a wildcard, but every host must be named"));
        }
        Self::from_url(&url).ok_or_else(|| wrong("contains a user or password, which belong in `secrets`"))
    }
}

impl FromStr for TcpPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a host and port; write \"smtp.example:587\" or \"[::1]:25\"");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        if host.contains(['*', '/', '@']) {
            return Err(wrong());
        }
        let host = Host::parse(host).map_err(|_| wrong())?;
        Ok(Self { host: undotted(host), port })
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => Ok(()),
            (_, port) => write!(formatter, ":{port}"),
        }
    }
}

impl fmt::Debug for HttpOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Debug for TcpPeer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(grant: &str, url: &str) -> bool {
        let grant: HttpOrigin = grant.parse().unwrap();
        Url::parse(url).is_ok_and(|url| HttpOrigin::from_url(&url).is_some_and(|origin| origin == grant))
    }

    #[test]
    fn scheme_host_and_port_must_agree() {
        for url in [
            "https://shop.example/a?b#c",
            "https://SHOP.example:443/",
            "https://shop.example./",
            "https:\\\\shop.example\\a",
            "https://shop%2Eexample/",
        ] {
            assert!(granted("https://shop.example", url), "{url}");
        }
        for url in [
            "http://shop.example/",
            "https://shop.example:444/",
            "https://shop.example.evil.example/",
            "https://xshop.example/",
            "https://shop.example@evil.example/",
            "https://evil.example#@shop.example/",
            "https://evil.example\\@shop.example/",
            "https://user@shop.example/",
            "https://:password@shop.example/",
            "ftp://shop.example/",
            "https://shop.example%00/",
        ] {
            assert!(!granted("https://shop.example", url), "{url}");
        }
    }

    #[test]
    fn addresses_are_the_same_in_every_spelling() {
        for url in [
            "http://127.0.0.1:8080/",
            "http://127.1:8080/",
            "http://2130706433:8080",
            "http://0x7f.0.0.1:8080",
            "http://0177.0.0.1:8080/",
            "http://127.0.0.1.:8080/",
        ] {
            assert!(granted("http://127.0.0.1:8080", url), "{url}");
            assert!(!granted("http://10.0.0.1:8080", url), "{url}");
        }
        assert!(granted("http://[::1]", "http://[0:0:0:0:0:0:0:1]/"));
        assert!(!granted("http://127.0.0.1", "http://[::ffff:127.0.0.1]/"));
    }

    #[test]
    fn invalid_origins_are_reported_with_a_cure() {
        for (text, words) in [
            ("shop.example", "is not an HTTP origin; write \"https://shop.example\""),
            ("ftp://shop.example", "starts with neither"),
            ("https://shop.example/hooks", "has a path, but grants are for whole hosts"),
            ("https://shop.example?x", "has a path"),
            ("https://", "is not an HTTP origin"),
            ("https://*.example", "wildcard"),
            ("https://u:p@shop.example", "contains a user or password"),
        ] {
            let error = text.parse::<HttpOrigin>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!("http://Shop.Example:80/".parse::<HttpOrigin>().unwrap().to_string(), "http://shop.example");
    }

    #[test]
    fn peers_have_a_host_and_a_port() {
        assert_eq!(format!("{:?}", "SMTP.example.:587".parse::<TcpPeer>().unwrap()), "smtp.example:587");
        assert_eq!(format!("{:?}", "[::1]:25".parse::<TcpPeer>().unwrap()), "[::1]:25");
        for text in ["smtp.example", "smtp.example:", "smtp.example:0", ":25", "tcp://smtp.example:25", "::1", "a b:1"] {
            assert!(text.parse::<TcpPeer>().is_err(), "{text}");
        }
    }
}
