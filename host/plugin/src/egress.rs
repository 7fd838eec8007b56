//! The addresses that a plugin may connect to: public ones, and those in granted networks.
//!
//! Every address that a name resolves to must pass [`EgressPolicy::permits`], in `client` for HTTP and
//! in `tcp` for sockets. `endpoints` parses the names themselves.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, as in `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpNet);

/// The networks that a signal type may connect to in addition to the public Internet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct EgressPolicy(Vec<Network>);

/// Metadata services of cloud providers, which give credentials to any process on the machine.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// IPv4 ranges that are not public: the registry of RFC 6890, and multicast.
const PRIVATE_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// Ranges within 2000::/3, the only public range of IPv6, that are not public: protocol assignments
/// (including Teredo), and documentation.
const PRIVATE_V6: [Ipv6Net; 3] = [v6([0x2001, 0], 23), v6([0x2001, 0xdb8], 32), v6([0x3fff, 0], 20)];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([first, second]: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

impl EgressPolicy {
    /// Creates a policy; the order of the networks and duplicates make no difference.
    pub(super) fn new(mut networks: Vec<Network>) -> Self {
        networks.sort_unstable();
        networks.dedup();
        Self(networks)
    }

    /// Returns whether `name` may resolve to `address`. `localhost` may resolve to loopback addresses.
    pub(super) fn permits(&self, name: &str, address: IpAddr) -> bool {
        let address = embedded(address).unwrap_or(address);
        if METADATA.contains(&address) {
            return self.0.iter().any(|network| network.is_single() && network.contains(address));
        }
        is_public(address)
            || self.0.iter().any(|network| network.contains(address))
            || (is_localhost(name) && address.is_loopback())
    }
}

/// Returns whether a host is spelled `localhost`.
fn is_localhost(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost")
}

/// Returns the IPv4 address that is embedded in an IPv6 address, by any translation scheme.
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match segments {
        // Loopback and unspecified do not embed an IPv4 address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped, translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // ISATAP.
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !PRIVATE_V4.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => {
            address.segments()[0] & 0xe000 == 0x2000 && !PRIVATE_V6.iter().any(|range| range.contains(&address))
        }
    }
}

impl Network {
    fn is_single(self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// Parses a range. The parser of `ipnet` would take `010.0.0.0`, which some read as octal.
fn range(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else { return text.parse::<IpAddr>().ok().map(IpNet::from) };
    let prefix = Some(prefix).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = range(text).ok_or_else(|| {
            format!("\"{text}\" is not an address range; write \"10.0.0.0/8\", \"fd00::/8\" or a single address")
        })?;
        match range == range.trunc() {
            true => Ok(Self(range)),
            false => Err(format!("\"{text}\" has bits set after its prefix; write the range's first address")),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(networks: &[&str]) -> EgressPolicy {
        EgressPolicy::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn permitted(egress: &EgressPolicy, address: &str) -> bool {
        egress.permits("shop.example", address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_permitted() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "11.0.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(permitted(&egress(&[]), address), "{address}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            "ff0e::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "64:ff9b:1::a00:1",
            "4000::1",
            "e000::1",
        ] {
            assert!(!permitted(&egress(&[]), address), "{address}");
        }
    }

    #[test]
    fn private_addresses_embedded_in_ipv6_are_refused() {
        for hidden in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "0.0.0.0"] {
            let v4: Ipv4Addr = hidden.parse().unwrap();
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for address in [
                format!("::ffff:{high:x}:{low:x}"),
                format!("::{high:x}:{low:x}"),
                format!("::ffff:0:{high:x}:{low:x}"),
                format!("64:ff9b::{high:x}:{low:x}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:4860::5efe:{high:x}:{low:x}"),
                format!("2001:4860::200:5efe:{high:x}:{low:x}"),
                format!("2001:0:{high:x}:{low:x}::1"),
            ] {
                assert!(!permitted(&egress(&[]), &address), "{address}");
            }
        }
    }

    #[test]
    fn granted_networks_are_permitted_in_every_form() {
        let egress = egress(&["10.0.0.0/8", "127.0.0.0/8", "fd12::/16"]);
        for address in ["10.0.0.1", "10.255.0.1", "127.0.0.1", "::ffff:10.0.0.1", "2002:a00:1::1", "fd12::5"] {
            assert!(permitted(&egress, address), "{address}");
        }
        for address in ["192.168.0.1", "::1", "fd13::1"] {
            assert!(!permitted(&egress, address), "{address}");
        }
    }

    #[test]
    fn metadata_services_need_their_own_grant() {
        let wide = egress(&["169.254.0.0/16", "fd00::/8", "0.0.0.0/0"]);
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "168.63.129.16"] {
            assert!(!permitted(&wide, address), "{address}");
        }
        assert!(permitted(&wide, "169.254.1.1"));
        assert!(permitted(&egress(&["169.254.169.254/32"]), "169.254.169.254"));
        assert!(permitted(&egress(&["fd00:ec2::254"]), "fd00:ec2::254"));
    }

    #[test]
    fn localhost_resolves_to_loopback_addresses_only() {
        let egress = egress(&[]);
        for name in ["localhost", "LOCALHOST", "localhost."] {
            assert!(egress.permits(name, "127.0.0.1".parse().unwrap()), "{name}");
            assert!(egress.permits(name, "::1".parse().unwrap()), "{name}");
            assert!(!egress.permits(name, "10.0.0.1".parse().unwrap()), "{name}");
        }
        assert!(!egress.permits("localhost.example", "127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ranges_are_parsed_strictly() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "127.0.0.1/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
        for text in ["", "10/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.1/8", "host/8", "010.0.0.0/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
