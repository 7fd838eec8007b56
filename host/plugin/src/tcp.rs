//! The `wasi:sockets` interfaces: name lookups and TCP connections to granted endpoints.
//!
//! A plugin must never listen, use UDP, or connect to an address that no granted name has resolved
//! to. `egress` decides which addresses a name may resolve to; `descriptors` counts the sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use url::Host;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Host as _, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::subscribe;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsCtxView, WasiSocketsView as _};

use super::descriptors::Held;
use super::endpoints::undotted;
use super::guest::State;
use super::lookup::{LOOKUPS, NameLookup};
use super::plugin_context::PluginContext;
use signalbus_core::text;
use signalbus_telemetry as telemetry;

/// Maximum number of sockets and name lookups that an instance has open.
const OPEN: usize = 64;

/// What an instance has open, and the addresses that it may connect to.
pub(super) struct Sockets {
    addresses: Addresses,
    /// The descriptor of each socket and lookup.
    open: HashMap<u32, Option<Held>>,
}

impl Sockets {
    pub(super) fn new(context: PluginContext) -> Self {
        let addresses = Addresses { context, found: Arc::default() };
        Self { addresses, open: HashMap::new() }
    }

    /// Enables TCP and name lookups, if endpoints are granted.
    pub(super) fn open(&self, wasi: &mut WasiCtxBuilder) {
        self.addresses.open(wasi);
    }

    /// Takes the descriptor of one more socket or lookup.
    fn descriptor(&self) -> Result<Option<Held>, ErrorCode> {
        if self.open.len() >= OPEN {
            return Err(self.bounded(&format!("an instance may have {OPEN} sockets and name lookups open at once")));
        }
        let account = self.addresses.context.descriptors.as_ref();
        account.map(|account| account.take().map_err(|exceeded| self.bounded(&exceeded.to_string()))).transpose()
    }

    /// Returns the places for lookups of the signal type.
    fn places(&self) -> Arc<Semaphore> {
        let account = self.addresses.context.descriptors.as_ref();
        account.map_or_else(|| Arc::new(Semaphore::new(LOOKUPS)), |account| account.lookups())
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
        let mut found = self.found();
        let names = found.entry(address).or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        true
    }

    fn deny(&self, reason: &str) {
        telemetry::denied_because(&self.context.signal_type, "grants.tcp", reason);
    }
}

/// The host side of sockets and name lookups.
pub(super) struct View<'a> {
    pub(super) sockets: WasiSocketsCtxView<'a>,
    pub(super) own: &'a mut Sockets,
}

impl View<'_> {
    fn resolve_addresses(&mut self, name: &str) -> Result<NameLookup, ErrorCode> {
        let addresses = &self.own.addresses;
        let Some(granted) = addresses.granted(name) else {
            let mut name = addresses.context.grants.redact(name).into_owned();
            text::cut(&mut name, 256);
            addresses.deny(&format!("the name {name:?} is not granted: add it to `grants.tcp`"));
            return Err(ErrorCode::AccessDenied);
        };
        Ok(match Host::parse(&granted) {
            Ok(Host::Ipv4(address)) => NameLookup::of_address(granted, address.into()),
            Ok(Host::Ipv6(address)) => NameLookup::of_address(granted, address.into()),
            _ => NameLookup::of_name(granted, self.own.places()),
        })
    }

    fn next_address(&mut self, lookup: &Resource<NameLookup>) -> wasmtime::Result<Result<Option<IpAddress>, ErrorCode>> {
        let lookup = self.sockets.table.get_mut(lookup)?;
        let mut end = Ok(None);
        Ok(loop {
            match lookup.next() {
                Ok(Some(address)) if self.own.addresses.note(&lookup.name, address) => break Ok(Some(wit(address))),
                Ok(Some(_)) => end = Err(ErrorCode::AccessDenied),
                Ok(None) => break end,
                Err(error) => break Err(error),
            }
        })
    }

    fn create_socket(&mut self, family: IpAddressFamily) -> wasmtime::Result<Result<Resource<TcpSocket>, ErrorCode>> {
        match self.sockets.create_tcp_socket(family) {
            Ok(socket) => Ok(Ok(socket)),
            Err(error) => self.sockets.convert_error_code(error).map(Err),
        }
    }
}

/// Links name lookups of granted names only, and sockets that are counted.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    add_lookups(&mut linker.instance("wasi:sockets/ip-name-lookup@0.2.12")?)?;
    let mut create = linker.instance("wasi:sockets/tcp-create-socket@0.2.12")?;
    create.func_wrap("create-tcp-socket", |mut store: Store<'_>, (family,): (IpAddressFamily,)| {
        let mut view = store.data_mut().tcp();
        let descriptor = match view.own.descriptor() {
            Ok(descriptor) => descriptor,
            Err(error) => return Ok((Err(error),)),
        };
        let socket = view.create_socket(family)?;
        view.own.open.extend(socket.as_ref().ok().map(|socket| (socket.rep(), descriptor)));
        Ok((socket,))
    })?;
    tcp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    // Beside dropping a socket, this counts it no longer.
    linker.allow_shadowing(true);
    let socket = ResourceType::host::<TcpSocket>();
    linker.instance("wasi:sockets/tcp@0.2.12")?.resource("tcp-socket", socket, |mut store, rep| {
        let View { mut sockets, own } = store.data_mut().tcp();
        HostTcpSocket::drop(&mut sockets, Resource::new_own(rep))?;
        own.open.remove(&rep);
        Ok(())
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_lookups(lookups: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    type Lookup = Resource<NameLookup>;
    lookups.resource("resolve-address-stream", ResourceType::host::<NameLookup>(), |mut store, rep| {
        let View { sockets, own } = store.data_mut().tcp();
        sockets.table.delete(Lookup::new_own(rep))?;
        own.open.remove(&rep);
        Ok(())
    })?;
    lookups.func_wrap("resolve-addresses", |mut store: Store<'_>, (network, name): (Resource<Network>, String)| {
        let mut view = store.data_mut().tcp();
        view.sockets.table.get(&network)?;
        // The resolver opens a socket, too.
        let begun = view.own.descriptor().and_then(|descriptor| Ok((view.resolve_addresses(&name)?, descriptor)));
        let (lookup, descriptor) = match begun {
            Ok(begun) => begun,
            Err(error) => return Ok((Err(error),)),
        };
        let lookup = view.sockets.table.push(lookup)?;
        view.own.open.insert(lookup.rep(), descriptor);
        Ok((Ok(lookup),))
    })?;
    let next = "[method]resolve-address-stream.resolve-next-address";
    lookups
        .func_wrap(next, |mut store: Store<'_>, (lookup,): (Lookup,)| Ok((store.data_mut().tcp().next_address(&lookup)?,)))?;
    lookups.func_wrap("[method]resolve-address-stream.subscribe", |mut store: Store<'_>, (lookup,): (Lookup,)| {
        Ok((subscribe(store.data_mut().tcp().sockets.table, lookup)?,))
    })
}

type Store<'a> = StoreContextMut<'a, State>;

fn wit(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(address) => IpAddress::Ipv4(address.octets().into()),
        IpAddr::V6(address) => IpAddress::Ipv6(address.segments().into()),
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
