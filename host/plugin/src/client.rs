//! The HTTP clients of the process, one for each signal type and its grants.
//!
//! A pooled connection must never serve another signal type: it may not be permitted to connect to the peer, and
//! over HTTP/2 one that does not read its responses would hold up the other. `http` sends requests through these
//! clients; `egress` decides which addresses are permitted.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub(super) use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder};
use tokio::sync::Semaphore;
use url::Url;

use super::egress::EgressPolicy;
use super::grants::Grants;
use super::lookup::{LOOKUPS, look_up};

/// Time limit for connecting, unless the request sets one.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Maximum size of the headers of a response.
pub(super) const LONGEST_HEAD: u32 = 64 << 10;
/// How long an idle connection is kept: shorter than the minute after which servers commonly close it.
const IDLE: Duration = Duration::from_secs(20);
/// Maximum number of idle connections kept per host.
const IDLE_CONNECTIONS: usize = 256;
/// Environment variables that name proxies; their upper-case forms count as well.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Identifies a client.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    signal_type: String,
    egress: EgressPolicy,
    ca: Option<Arc<str>>,
}

/// The clients that plugins currently use.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<Key, Weak<Client>>>);

impl Clients {
    /// Returns the client of a signal type with these grants, which keeps up to `idle` connections per host.
    ///
    /// # Errors
    /// TLS cannot be set up, e.g. because the system has no certificates.
    pub(super) fn for_grants(&self, signal_type: &str, grants: &Grants, idle: usize) -> Result<Arc<Client>, String> {
        let key = Key { signal_type: signal_type.to_owned(), egress: grants.egress(), ca: grants.ca.clone() };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(client(&key, idle.min(IDLE_CONNECTIONS))?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key, Arc::downgrade(&client));
        Ok(client)
    }
}

fn client(key: &Key, idle: usize) -> Result<Client, String> {
    // An error means that one is already installed, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authorities = key.ca.as_deref().map(authorities).transpose()?.unwrap_or_default();
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    let resolver = Resolver { egress: key.egress.clone(), proxies: proxies(), lookups };
    let builder = ClientBuilder::new()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        .http2_max_header_list_size(LONGEST_HEAD)
        .tcp_nodelay(true)
        .user_agent(concat!("signalbus/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(resolver)
        .tls_certs_merge(authorities);
    builder.build().map_err(|error| {
        let cause = std::iter::successors(Some(&error as &(dyn Error + 'static)), |error| (*error).source()).last();
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        format!("HTTPS cannot be set up: {cause}; install the package ca-certificates, or name a file in `[http] ca`")
    })
}

/// Parses the certificates of a PEM file.
fn authorities(pem: &str) -> Result<Vec<Certificate>, String> {
    let certificates = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if certificates.is_empty() {
        return Err("no certificate found; name a file in PEM form".to_owned());
    }
    Ok(certificates)
}

/// Checks that a text can be used as [`Grants::ca`].
///
/// # Errors
/// The text contains no certificate.
pub fn check_authorities(pem: &str) -> Result<(), String> {
    authorities(pem).map(drop)
}

/// Returns the hosts of the proxies that the environment names. They are the operator's choice, and
/// may have any address.
fn proxies() -> HashSet<String> {
    let names = PROXIES.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    let hosts = names.filter_map(|name| std::env::var(name).ok()).filter_map(|proxy| {
        let url = if proxy.contains("://") { Url::parse(&proxy) } else { Url::parse(&format!("http://{proxy}")) };
        url.ok()?.host_str().map(str::to_ascii_lowercase)
    });
    hosts.collect()
}

/// Resolves names to permitted addresses only. A host that is an address is not resolved: it was
/// granted as such.
struct Resolver {
    egress: EgressPolicy,
    proxies: HashSet<String>,
    lookups: Arc<Semaphore>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, name) = (self.egress.clone(), name.as_str().to_owned());
        let lookups = self.lookups.clone();
        let trusted = self.proxies.contains(&name.to_ascii_lowercase());
        Box::pin(async move {
            let found = look_up(lookups, name.clone()).await.map_err(|error| Unresolved(error.to_string()))?;
            let permitted: Vec<SocketAddr> =
                found.iter().copied().filter(|address| trusted || egress.permits(&name, address.ip())).collect();
            match found.first() {
                None => Err(Unresolved("no address found".to_owned()).into()),
                Some(address) if permitted.is_empty() => Err(Unreachable { name, address: *address }.into()),
                Some(_) => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unresolved(pub(super) String);

/// A name all of whose addresses are forbidden.
#[derive(Debug, thiserror::Error)]
#[error("\"{name}\" resolves to {}, which is not public: add its range to `grants.networks`", address.ip())]
pub(super) struct Unreachable {
    name: String,
    address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(networks: &[&str], ca: Option<&str>) -> Grants {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Grants { networks, ca: ca.map(Into::into), ..Grants::default() }
    }

    #[test]
    fn a_client_serves_one_type_with_the_same_networks() {
        let clients = Clients::default();
        let client = |name: &str, networks: &[&str]| clients.for_grants(name, &grants(networks, None), 1).unwrap();
        let public = client("T", &[]);
        assert!(Arc::ptr_eq(&public, &client("T", &[])));
        assert!(!Arc::ptr_eq(&public, &client("U", &[])));
        let one = client("T", &["10.0.0.0/8", "127.0.0.0/8"]);
        assert!(!Arc::ptr_eq(&public, &one));
        assert!(Arc::ptr_eq(&one, &client("T", &["127.0.0.0/8", "10.0.0.0/8"])));
    }

    #[test]
    fn unused_clients_are_dropped() {
        let clients = Clients::default();
        drop(clients.for_grants("T", &grants(&["10.0.0.0/8"], None), 1).unwrap());
        let _public = clients.for_grants("T", &grants(&[], None), 1).unwrap();
        assert_eq!(clients.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_authority_file_contains_a_certificate() {
        assert!(check_authorities("nothing").unwrap_err().starts_with("no certificate found"));
        assert!(Clients::default().for_grants("T", &grants(&[], Some("")), 1).is_err());
    }

    async fn resolved(networks: &[&str], name: &str) -> Result<Vec<SocketAddr>, String> {
        let lookups = Arc::new(Semaphore::new(1));
        let resolver = Resolver { egress: grants(networks, None).egress(), proxies: HashSet::new(), lookups };
        let addresses = resolver.resolve(name.parse().unwrap()).await;
        addresses.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn names_resolve_to_permitted_addresses_only() {
        assert!(resolved(&[], "localhost").await.is_ok());
        // A numeric name is looked up like any other.
        let error = resolved(&[], "10.0.0.1").await.unwrap_err();
        assert_eq!(error, "\"10.0.0.1\" resolves to 10.0.0.1, which is not public: add its range to `grants.networks`");
        assert!(resolved(&["10.0.0.0/8"], "10.0.0.1").await.is_ok());
        assert!(resolved(&[], "no-such-host.invalid").await.is_err());
    }
}
