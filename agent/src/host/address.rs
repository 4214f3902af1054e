//! Whose an address is: of the host alone, of somebody's own network, or of the world. `src/daemon/network/whose-address.ts` has it for what the
//! daemon connects to: both are tested by `test/support/address-vectors.json`.

use crate::net::netlink::Subnet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network between a guest and passt, and where it answers DNS (`docs/vmm.md`).
const GUEST_NETWORKS: [Cidr; 2] = [v4([10, 0, 2, 0], 24), v6([0xfd62, 0x616e, 0x6765, 0x7200, 0, 0, 0, 0], 64)];
pub const DNS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)), IpAddr::V6(Ipv6Addr::new(0xfd62, 0x616e, 0x6765, 0x7200, 0, 0, 0, 3))];
pub const DNS_PORT: u16 = 53;

/// Of the host alone, or behind no router: loopback, "this host", link-local; IPv4 in IPv6's clothes, which a socket takes for that; and what clouds
/// tell their machines: the services of Azure, Alibaba, Oracle, AWS and Google that are not link-local.
const NEVER: [Cidr; 13] = [
    v4([127, 0, 0, 0], 8),
    v4([0, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([168, 63, 129, 16], 32),
    v4([100, 100, 100, 200], 32),
    v4([192, 0, 0, 192], 32),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfd00, 0x0c1, 0, 0, 0, 0, 0, 0], 32),
    v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 32),
    v6([0xfd20, 0x0ce, 0, 0, 0, 0, 0, 0], 32),
];
/// Networks that are somebody's own (RFC 1918, 6598, 2544, 6890; 4193, 3879, 8215).
const PRIVATE: [Cidr; 9] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v4([198, 18, 0, 0], 15),
    v4([192, 0, 0, 0], 24),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
];
/// Prefixes of IPv6 addresses that lead to an IPv4 address in them: NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380).
const NAT64: Cidr = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const SIX_TO_FOUR: Cidr = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Cidr = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

const fn v4(octets: [u8; 4], bits: u32) -> Cidr {
    Cidr { address: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])), bits }
}

const fn v6(s: [u16; 8], bits: u32) -> Cidr {
    Cidr { address: IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7])), bits }
}

/// `0.0.0.0/0` holds all addresses, of IPv6 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= most)?;
        Some(Cidr { address, bits })
    }

    pub fn of(subnet: &Subnet) -> Cidr {
        Cidr { address: subnet.address, bits: subnet.prefix.into() }
    }

    pub fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => self.bits == 0,
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// As `holds`, also for IPv4 addresses that an IPv6 address leads to.
    pub fn may_hold(self, address: IpAddr) -> bool {
        self.holds(address) || embedded(address).into_iter().flatten().any(|within| self.holds(within.into()))
    }
}

/// IPv4 addresses that packets to this address may end up at.
fn embedded(address: IpAddr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V6(six) = address else { return [None; 2] };
    let bits = six.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    if NAT64.holds(address) {
        [at(0), None]
    } else if SIX_TO_FOUR.holds(address) {
        [at(80), None]
    } else if TEREDO.holds(address) {
        // Its server, and its client with all bits turned.
        [at(64), Some(Ipv4Addr::from_bits(!(bits as u32)))]
    } else {
        [None; 2]
    }
}

/// Whether many may listen there.
pub fn is_group(address: IpAddr) -> bool {
    match address {
        // Multicast, what is reserved, and broadcast.
        IpAddr::V4(four) => four.octets()[0] >= 224,
        IpAddr::V6(six) => six.is_multicast(),
    }
}

/// What no guest may reach, whatever its rules say.
pub fn is_never(address: IpAddr) -> bool {
    NEVER.iter().chain(&GUEST_NETWORKS).any(|network| network.may_hold(address))
        || embedded(address).into_iter().flatten().any(|within| is_group(within.into()))
}

/// What is somebody's own, or the host's, by the networks that it is on.
pub fn is_near<'a>(address: IpAddr, mut local: impl Iterator<Item = &'a Cidr>) -> bool {
    PRIVATE.iter().any(|network| network.may_hold(address)) || local.any(|network| network.may_hold(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_holds_its_own_and_the_one_of_all_holds_all() {
        let holds = |network: &str, text: &str| Cidr::parse(network).expect("a network").holds(address(text));
        for (network, within, beyond) in [
            ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
            ("::/0", "2001:db8::1", "10.1.2.3"),
        ] {
            assert!(holds(network, within), "{network} {within}");
            assert!(!holds(network, beyond), "{network} {beyond}");
        }
        assert!(holds("0.0.0.0/0", "10.1.2.3") && holds("0.0.0.0/0", "2001:db8::1"));
        assert!(!holds("0.0.0.0/1", "::1"));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0", "x/8", "::1/-1"] {
            assert_eq!(Cidr::parse(wrong), None, "{wrong}");
        }
    }

    fn table() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../test/support/address-vectors.json")).expect("JSON")
    }

    fn texts(list: &serde_json::Value) -> Vec<&str> {
        list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
    }

    fn cidrs(list: &serde_json::Value) -> Vec<Cidr> {
        texts(list).into_iter().map(|text| Cidr::parse(text).expect("a network")).collect()
    }

    #[test]
    fn the_networks_are_those_of_the_table_that_the_daemon_has_too() {
        let sorted = |cidrs: Vec<Cidr>| {
            let mut sorted: Vec<_> = cidrs.into_iter().map(|cidr| (cidr.address, cidr.bits)).collect();
            sorted.sort();
            sorted
        };
        let table = table();
        assert_eq!(sorted([&NEVER[..], &GUEST_NETWORKS].concat()), sorted(cidrs(&table["never"])));
        assert_eq!(sorted(PRIVATE.to_vec()), sorted(cidrs(&table["private"])));
    }

    #[test]
    fn each_address_of_the_table_is_what_the_table_says() {
        let table = table();
        let local = cidrs(&table["local"]);
        for wanted in ["never", "group", "near", "world"] {
            let addresses = texts(&table["addresses"][wanted]);
            assert!(!addresses.is_empty());
            for text in addresses {
                let found = match address(text) {
                    address if is_group(address) => "group",
                    address if is_never(address) => "never",
                    address if is_near(address, local.iter()) => "near",
                    _ => "world",
                };
                assert_eq!(found, wanted, "{text}");
            }
        }
        for case in table["holds"].as_array().expect("a list") {
            let network = Cidr::parse(case[0].as_str().expect("a text")).expect("a network");
            assert_eq!(network.holds(address(case[1].as_str().expect("a text"))), case[2], "{case}");
        }
    }

    #[test]
    fn what_is_never_reached_is_not_reached_in_other_clothes_either() {
        for never in [
            "127.0.0.1",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "10.0.2.15",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd62:616e:6765:7200::2",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::224.0.0.1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
            // Teredo: its server, and its client.
            "2001:0:7f00:1::",
            "2001:0:808:808:0:0:80ff:fffe",
        ] {
            assert!(is_never(address(never)), "{never}");
        }
        for other in ["8.8.8.8", "10.0.3.1", "2001:db8::1", "2600::1", "64:ff9b::8.8.8.8", "2002:808:808::1", "fd00::1"]
        {
            assert!(!is_never(address(other)), "{other}");
        }
    }

    #[test]
    fn what_is_somebodys_own_is_near_by_any_of_its_addresses() {
        let local = [v4([203, 0, 113, 0], 24), v6([0x2001, 0xdb8, 7, 0, 0, 0, 0, 0], 64)];
        for near in [
            "10.9.9.9",
            "100.64.0.1",
            "203.0.113.7",
            "2001:db8:7::9",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "64:ff9b::10.1.2.3",
            "64:ff9b::203.0.113.7",
            "64:ff9b:1::8.8.8.8",
            "2002:c0a8:101::1",
            "2001:0:a00:1::",
            "2001:0:808:808:0:0:f5ff:fffe",
        ] {
            assert!(is_near(address(near), local.iter()), "{near}");
        }
        for far in ["8.8.8.8", "2001:db8:8::9", "2600::1", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(!is_near(address(far), local.iter()), "{far}");
        }
    }
}
