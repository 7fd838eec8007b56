//! The `wasi:sockets` interfaces: name lookups and TCP connections to granted endpoints.
//!
//! A plugin must never listen, use UDP, or connect to an address that no granted name has resolved
//! to. `egress` decides which addresses a name may resolve to; `descriptors` counts the sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use url::Host;
use wasmtime::component::{HasData, Linker, Resource, ResourceType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{HostTcpSocket, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};

use super::descriptors::Held;
use super::endpoints::undotted;
use super::guest::State;
use super::logs::PluginContext;
use signalbus_core::text;
use signalbus_telemetry as telemetry;

/// Maximum number of sockets and name lookups that an instance has open.
const OPEN: usize = 64;

/// What an instance has open, and the addresses that it may connect to.
pub(super) struct Sockets {
    addresses: Addresses,
    /// The name of each lookup.
    lookups: HashMap<u32, String>,
    /// The descriptor of each socket.
    open: HashMap<u32, Option<Held>>,
}

impl Sockets {
    pub(super) fn new(context: PluginContext) -> Self {
        let addresses = Addresses { context, found: Arc::default() };
        Self { addresses, lookups: HashMap::new(), open: HashMap::new() }
    }

    /// Enables TCP and name lookups, if endpoints are granted.
    pub(super) fn open(&self, wasi: &mut WasiCtxBuilder) {
        self.addresses.open(wasi);
    }

    /// Refuses one more socket or lookup than an instance may have.
    fn check_room(&self) -> Result<(), ErrorCode> {
        match self.open.len() + self.lookups.len() < OPEN {
            true => Ok(()),
            false => Err(self.bounded(&format!("an instance may have {OPEN} sockets and name lookups open at once"))),
        }
    }

    fn descriptor(&self) -> Result<Option<Held>, ErrorCode> {
        let account = self.addresses.context.descriptors.as_ref();
        account.map(|account| account.take().map_err(|exceeded| self.bounded(&exceeded.to_string()))).transpose()
    }

    fn bounded(&self, reason: &str) -> ErrorCode {
        telemetry::bound_reached(&self.addresses.context.signal_type, reason);
        ErrorCode::NewSocketLimit
    }
}

/// The addresses that an instance may connect to: those that its granted names have resolved to.
#[derive(Clone)]
struct Addresses {
    context: PluginContext,
    /// The names that have resolved to each address.
    found: Arc<Mutex<HashMap<IpAddr, Vec<String>>>>,
}

impl Addresses {
    fn open(&self, wasi: &mut WasiCtxBuilder) {
        if self.context.grants.tcp.is_empty() {
            return;
        }
        let own = self.clone();
        wasi.allow_tcp(true).allow_udp(false).allow_ip_name_lookup(true).socket_addr_check(move |address, purpose| {
            let permitted = own.permits(address, purpose);
            Box::pin(std::future::ready(permitted))
        });
    }

    fn permits(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        match purpose {
            // An outgoing connection binds any local port.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            SocketAddrUse::TcpConnect => {
                let known = self.knows(address);
                if !known {
                    self.deny(&format!("{address} does not belong to a granted name and port: add it to `grants.tcp`"));
                }
                known
            }
            _ => {
                self.deny("a plugin may connect, but can neither listen nor use UDP");
                false
            }
        }
    }

    fn knows(&self, address: SocketAddr) -> bool {
        let found = self.found();
        let names = found.get(&address.ip()).map(Vec::as_slice).unwrap_or_default();
        self.context.grants.tcp.iter().filter(|peer| peer.port == address.port()).any(|peer| match &peer.host {
            Host::Domain(name) => names.contains(name),
            Host::Ipv4(own) => address.ip() == *own,
            Host::Ipv6(own) => address.ip() == *own,
        })
    }

    fn found(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<String>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the requested name in normalised form, if it is granted; an address stands for itself.
    fn granted(&self, name: &str) -> Option<String> {
        let host = match name.parse() {
            Ok(IpAddr::V6(address)) => Host::Ipv6(address),
            _ => undotted(Host::parse(name).ok()?),
        };
        self.context.grants.tcp.iter().any(|peer| peer.host == host).then(|| host.to_string())
    }

    /// Records an address that a lookup has found. Returns `false` if the name may not resolve to it.
    fn note(&self, name: &str, address: IpAddr) -> bool {
        // An address in place of a name was granted as such.
        if Host::parse(name).is_ok_and(|host| !matches!(host, Host::Domain(_))) {
            return true;
        }
        if !self.context.grants.egress().permits(name, address) {
            self.deny(&format!("\"{name}\" resolves to {address}, which is not public: add its range to `grants.networks`"));
            return false;
        }
        self.found().entry(address).or_default().push(name.to_owned());
        true
    }

    fn deny(&self, reason: &str) {
        telemetry::denied_because(&self.context.signal_type, "grants.tcp", reason);
    }
}

/// The host side of name lookups, which resolves granted names only, and of new sockets.
pub(super) struct Lookup<'a> {
    pub(super) sockets: WasiSocketsCtxView<'a>,
    pub(super) own: &'a mut Sockets,
}

/// Tells the linker that [`Lookup`] serves the interface.
pub(super) struct Lookups;

impl HasData for Lookups {
    type Data<'a> = Lookup<'a>;
}

impl network::Host for Lookup<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets, error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets, error)
    }
}

impl network::HostNetwork for Lookup<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}

impl ip_name_lookup::Host for Lookup<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        let addresses = &self.own.addresses;
        let Some(granted) = addresses.granted(&name) else {
            let mut name = addresses.context.grants.redact(&name).into_owned();
            text::cut(&mut name, 256);
            addresses.deny(&format!("the name {name:?} is not granted: add it to `grants.tcp`"));
            return Err(ErrorCode::AccessDenied.into());
        };
        self.own.check_room()?;
        let stream = ip_name_lookup::Host::resolve_addresses(&mut self.sockets, network, name)?;
        self.own.lookups.insert(stream.rep(), granted);
        Ok(stream)
    }
}

impl HostResolveAddressStream for Lookup<'_> {
    fn resolve_next_address(&mut self, stream: Resource<ResolveAddressStream>) -> Result<Option<IpAddress>, SocketError> {
        let rep = stream.rep();
        let mut refused = false;
        while let Some(address) = self.sockets.resolve_next_address(Resource::new_borrow(rep))? {
            let name = self.own.lookups.get(&rep);
            if name.is_some_and(|name| self.own.addresses.note(name, ip(address))) {
                return Ok(Some(address));
            }
            refused = true;
        }
        if refused { Err(ErrorCode::AccessDenied.into()) } else { Ok(None) }
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.own.lookups.remove(&stream.rep());
        HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

impl tcp_create_socket::Host for Lookup<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> Result<Resource<TcpSocket>, SocketError> {
        self.own.check_room()?;
        let descriptor = self.own.descriptor()?;
        let socket = self.sockets.create_tcp_socket(family)?;
        self.own.open.insert(socket.rep(), descriptor);
        Ok(socket)
    }
}

/// Links another destructor of sockets, which counts them no longer.
pub(super) fn count_closed(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let socket = ResourceType::host::<TcpSocket>();
    linker.instance("wasi:sockets/tcp@0.2.12")?.resource("tcp-socket", socket, |mut store, rep| {
        let Lookup { mut sockets, own } = store.data_mut().lookup();
        HostTcpSocket::drop(&mut sockets, Resource::new_own(rep))?;
        own.open.remove(&rep);
        Ok(())
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grants;

    fn addresses(tcp: &[&str], networks: &[&str]) -> Addresses {
        let grants = Grants {
            tcp: tcp.iter().map(|peer| peer.parse().unwrap()).collect(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            ..Grants::default()
        };
        Sockets::new(PluginContext { grants: Arc::new(grants), ..PluginContext::for_plugin("p", "T") }).addresses
    }

    fn connects(addresses: &Addresses, to: &str) -> bool {
        addresses.permits(to.parse().unwrap(), SocketAddrUse::TcpConnect)
    }

    #[test]
    fn a_name_opens_its_own_addresses_and_port() {
        let own = addresses(&["smtp.example:587", "other.example:25"], &[]);
        assert!(!connects(&own, "1.1.1.1:587"));
        assert_eq!(own.granted("SMTP.example."), Some("smtp.example".into()));
        assert!(own.note("smtp.example", "1.1.1.1".parse().unwrap()));
        assert!(connects(&own, "1.1.1.1:587"));
        assert!(!connects(&own, "1.1.1.1:25"));
        assert!(!connects(&own, "1.1.1.2:587"));
        assert_eq!(own.granted("evil.example"), None);
    }

    #[test]
    fn a_name_does_not_open_private_networks() {
        let own = addresses(&["smtp.example:587"], &[]);
        for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"] {
            assert!(!own.note("smtp.example", address.parse().unwrap()), "{address}");
        }
        assert!(!connects(&own, "10.0.0.1:587"));
        let granted = addresses(&["smtp.example:587"], &["10.0.0.0/8"]);
        assert!(granted.note("smtp.example", "10.0.0.1".parse().unwrap()));
        assert!(connects(&granted, "10.0.0.1:587"));
    }

    #[test]
    fn a_granted_address_is_permitted() {
        let own = addresses(&["127.0.0.1:25", "[::1]:25"], &[]);
        assert!(connects(&own, "127.0.0.1:25") && connects(&own, "[::1]:25"));
        assert!(!connects(&own, "127.0.0.1:26") && !connects(&own, "127.0.0.2:25"));
        assert_eq!(own.granted("::1"), Some("[::1]".into()));
        assert_eq!(own.granted("0x7f.1"), Some("127.0.0.1".into()));
    }

    #[test]
    fn listening_and_udp_are_forbidden() {
        let own = addresses(&["127.0.0.1:25"], &[]);
        assert!(own.permits("0.0.0.0:0".parse().unwrap(), SocketAddrUse::TcpBind));
        assert!(!own.permits("0.0.0.0:25".parse().unwrap(), SocketAddrUse::TcpBind));
        assert!(!own.permits("127.0.0.1:0".parse().unwrap(), SocketAddrUse::TcpBind));
        for purpose in [SocketAddrUse::TcpListen, SocketAddrUse::TcpAccept, SocketAddrUse::UdpBind, SocketAddrUse::UdpSend] {
            assert!(!own.permits("127.0.0.1:25".parse().unwrap(), purpose));
        }
    }
}
