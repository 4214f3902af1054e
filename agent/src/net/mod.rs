//! The guest's network interfaces.

pub mod netlink;

use crate::failure::{Failure, on};
use crate::identity::hosts;
use crate::ops::request::Network;
use crate::sys::{check, own};
use netlink::{Netlink, Subnet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Hardware type of Ethernet in /sys/class/net.
const ETHERNET: &str = "1";

pub fn loopback_up() -> Result<(), Failure> {
    let index = index_of("lo")?;
    Netlink::open().and_then(|mut netlink| netlink.set_up(index, None)).map_err(on("lo"))
}

/// What the interface was last given.
struct Given {
    name: String,
    /// Without its MAC address and hosts.
    network: Network,
    mac: Option<String>,
    /// For what is asked of an interface by its name.
    socket: OwnedFd,
}

static GIVEN: Mutex<Option<Given>> = Mutex::new(None);

/// Gives the VM's interface these addresses, routes and resolvers, and no others. Where they are what it was given last, as in a guest that has gone on
/// from a template, only the MAC address is looked at.
pub fn configure(network: &Network) -> Result<(), Failure> {
    let wanted = Network { mac: None, hosts: Vec::new(), ..network.clone() };
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(given) = given.as_mut().filter(|given| given.network == wanted)
        && given.take_mac(network.mac.as_deref()).is_ok()
    {
        return Ok(());
    }
    let name = configure_anew(network)?;
    if let Some(servers) = &network.dns {
        hosts::set_resolvers(servers)?;
    }
    // SAFETY: no memory is passed.
    let socket = own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    *given = Some(Given { name, network: wanted, mac: network.mac.clone(), socket });
    Ok(())
}

impl Given {
    /// By one ioctl: netlink, and finding the interface, are many times the work for a guest that is to be ready at once.
    fn take_mac(&mut self, mac: Option<&str>) -> io::Result<()> {
        let Some(mac) = mac.filter(|mac| self.mac.as_ref().is_none_or(|known| !known.eq_ignore_ascii_case(mac))) else {
            return Ok(());
        };
        let octets = parse_mac(mac).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: an all-zero ifreq is valid; the name is shorter than its field, and the request outlives the call.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(self.name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_hwaddr.sa_family = libc::ARPHRD_ETHER;
            for (to, from) in request.ifr_ifru.ifru_hwaddr.sa_data.iter_mut().zip(octets) {
                *to = from as libc::c_char;
            }
            check(libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFHWADDR as libc::Ioctl, &request))?;
        }
        self.mac = Some(mac.to_string());
        Ok(())
    }
}

/// The interface's name.
fn configure_anew(network: &Network) -> Result<String, Failure> {
    let addresses = subnets(network)?;
    let gateways = gateways(network)?;
    let name = find_interface(network.mac.as_deref())?;
    let index = index_of(&name)?;
    let mut netlink = Netlink::open().map_err(on("netlink"))?;
    // A restored guest has the address of the one it was saved from.
    if let Some(mac) = &network.mac
        && !attribute_of(&name, "address").eq_ignore_ascii_case(mac)
    {
        let octets = parse_mac(mac).ok_or_else(|| Failure::new("EINVAL", format!("mac: {mac:?}")))?;
        netlink.set_mac(index, octets).map_err(on(format!("{name} mac")))?;
    }
    netlink.set_up(index, network.mtu).map_err(on(format!("{name} up")))?;
    for old in netlink.addresses(index).map_err(on(format!("{name} addresses")))? {
        if addresses.contains(&old) {
            continue;
        }
        netlink.remove_address(index, &old).map_err(on(format!("{name} remove {}", old.address)))?;
        // IPv6's way out stays without an address, unlike IPv4's; one that the guest has taken away itself is none to take away.
        if old.address.is_ipv6() && network.gateway6.is_none() {
            let _ = netlink.remove_default_route6(index);
        }
    }
    let mut six = true;
    for subnet in &addresses {
        match netlink.add_address(index, subnet) {
            Err(error) if subnet.address.is_ipv6() && is_without(&error) => six = false,
            other => other.map_err(on(format!("{name} address {}", subnet.address)))?,
        }
    }
    for gateway in gateways.into_iter().filter(|gateway| six || gateway.is_ipv4()) {
        netlink.set_default_route(index, gateway).map_err(on(format!("{name} gateway {gateway}")))?;
    }
    Ok(name)
}

/// The guest's kernel has no IPv6, or has been told to do without.
fn is_without(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EACCES | libc::EPERM))
}

fn subnets(network: &Network) -> Result<Vec<Subnet>, Failure> {
    let given = network.address.iter().chain(&network.address6);
    given
        .map(|text| {
            Subnet::parse(text)
                .ok_or_else(|| Failure::new("EINVAL", format!("{text:?} is not an address with a prefix length")))
        })
        .collect()
}

fn gateways(network: &Network) -> Result<Vec<IpAddr>, Failure> {
    let given = network.gateway.iter().chain(&network.gateway6);
    given
        .map(|text| text.parse().map_err(|_| Failure::new("EINVAL", format!("gateway: {text:?} is not an IP address"))))
        .collect()
}

/// The interface with this MAC address, else the only Ethernet one.
fn find_interface(mac: Option<&str>) -> Result<String, Failure> {
    let entries = fs::read_dir("/sys/class/net").map_err(on("/sys/class/net"))?;
    let ethernet: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        // Bridges and tunnels that programs make are no devices of the machine.
        .filter(|name| {
            attribute_of(name, "type") == ETHERNET
                && fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false)
        })
        .collect();
    let matching =
        mac.and_then(|mac| ethernet.iter().find(|name| attribute_of(name, "address").eq_ignore_ascii_case(mac)));
    match (matching, ethernet.as_slice()) {
        (Some(name), _) | (None, [name]) => Ok(name.clone()),
        (None, []) => Err(Failure::new("ENODEV", "the guest has no Ethernet interface")),
        (None, _) => {
            Err(Failure::new("ENODEV", format!("no interface has the MAC address {}", mac.unwrap_or("asked for"))))
        }
    }
}

fn attribute_of(name: &str, file: &str) -> String {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
    text.trim_end().to_string()
}

/// `02:00:00:00:00:01`
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let octets: Vec<u8> = text
        .split(':')
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    octets.try_into().ok()
}

fn index_of(name: &str) -> Result<u32, Failure> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let text = fs::read_to_string(&path).map_err(on(&path))?;
    text.trim_end().parse().map_err(|_| Failure::new("EIO", format!("{path}: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn mac_addresses_are_parsed_strictly() {
        assert_eq!(parse_mac("02:00:00:ab:CD:01"), Some([2, 0, 0, 0xab, 0xcd, 1]));
        for wrong in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02-00-00-00-00-00", "0g:00:00:00:00:00"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
