//! How the servers of a connection are reached: what they have in common, and where each of them is.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, RedisError, TlsCertificates};
use url::Url;

use super::super::{ConnectionConfig, tls, unavailable};
use signalbus_core::signal::Outage;

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    /// An IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port }
    }

    /// Parses `host:port`; without a host it is that of the server which said so.
    pub(super) fn parse(text: &str, from: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::new(if host.is_empty() { &from.host } else { host }, port.parse().ok()?))
    }

    /// Returns the address at which this server, or another one, is as seen by the server `from`.
    pub(super) fn or(host: Option<&str>, port: u16, from: &Self) -> Self {
        Self::new(host.filter(|host| !host.is_empty()).unwrap_or(&from.host), port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

/// What servers of one kind have in common: the login, the database and the certificates that they are trusted by.
pub(super) struct Access {
    url: Url,
    certificates: Option<TlsCertificates>,
}

/// A server, and the means to connect to it.
pub(super) struct Endpoint {
    client: Client,
    pub(super) address: Address,
}

impl Access {
    /// Returns the access to the servers of a URL, with the database that `path` names.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(config: &ConnectionConfig, path: &str) -> Result<Self, String> {
        let mut url = config.url.clone();
        let scheme = url.scheme().split('-').next().unwrap_or_default().to_owned();
        url.set_query(None);
        url.set_path(path);
        url.set_scheme(&scheme).map_err(|()| "invalid URL")?;
        let root_cert = config.ca.as_deref().map(tls::roots).transpose()?;
        let certificates = root_cert.map(|root| TlsCertificates { client_tls: None, root_cert: Some(root.into_bytes()) });
        Ok(Self { url, certificates })
    }

    /// Returns the same access with another login, without a database.
    ///
    /// # Errors
    /// The URL cannot carry it.
    pub(super) fn with_login(&self, user: &str, password: Option<&str>) -> Result<Self, String> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut url = self.url.clone();
        url.set_path("");
        url.set_username(&encoded(user)).map_err(|()| "invalid user")?;
        url.set_password(password.map(encoded).as_deref()).map_err(|()| "invalid password")?;
        Ok(Self { url, certificates: self.certificates.clone() })
    }

    /// Returns the server at an address.
    ///
    /// # Errors
    /// It cannot be reached in this way.
    pub(super) fn to(&self, address: Address) -> Result<Endpoint, String> {
        let mut url = self.url.clone();
        let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
        url.set_host(Some(&host)).map_err(|error| format!("server \"{address}\": {error}"))?;
        url.set_port(Some(address.port)).map_err(|()| format!("server \"{address}\": invalid port"))?;
        let client = url.as_str().into_connection_info().and_then(|info| {
            // Otherwise the end of a batch waits until the server has told that it has the rest.
            let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
            match &self.certificates {
                Some(certificates) => Client::build_with_tls(info, certificates.clone()),
                None => Client::open(info),
            }
        });
        Ok(Endpoint { client: client.map_err(|error| error.to_string())?, address })
    }
}

impl Endpoint {
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Outage> {
        // Each call limits its own waits.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| self.refused(&error))
    }

    /// Returns what it means that the server does not do what connecting needs.
    pub(super) fn refused(&self, error: &RedisError) -> Outage {
        let address = &self.address;
        let login = error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
        match login {
            true => Outage::Misconfigured {
                reason: format!("Redis at {address} refuses the login: correct it in the URL: {}", words(error)),
            },
            false => unavailable(format!("Redis at {address}: {}", words(error))),
        }
    }
}

/// Returns an error as the server has put it, with its code.
pub(super) fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_leave_out_its_host() {
        let from = Address::new("[::1]", 1);
        let parsed = |text: &str| Address::parse(text, &from).map(|address| address.to_string());
        let told =
            [("a:2", Some("a:2")), (":2", Some("[::1]:2")), ("fe80::1:2", Some("[fe80::1]:2")), ("a:b", None), ("a", None)];
        for (text, address) in told {
            assert_eq!(parsed(text).as_deref(), address, "{text}");
        }
        assert_eq!(Address::or(Some(""), 3, &from).to_string(), "[::1]:3");
    }
}
