//! Just enough of rtnetlink: links up, addresses, default routes. Messages are built as bytes, as the kernel lays them out.

use crate::sys::{check, own};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `IFA_F_NODAD`: an IPv6 address that can be used at once; nobody else is on the VM's link.
const NO_DUPLICATE_CHECK: u8 = 2;
/// Bytes of one answer.
const ANSWER: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub address: IpAddr,
    /// Bits.
    pub prefix: u8,
}

impl Subnet {
    /// `10.0.2.15/24`
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let subnet = Subnet { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
        let bits = if subnet.address.is_ipv4() { 32 } else { 128 };
        (subnet.prefix <= bits).then_some(subnet)
    }
}

/// A socket that has something to read when an interface gets or loses an address.
pub fn address_changes() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero address is valid, and outlives the call.
    unsafe {
        let socket = own(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE))?;
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        let length = size_of_val(&address) as libc::socklen_t;
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        Ok(socket)
    }
}

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    /// `body` is the fixed part that follows the header for this type.
    fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend(body);
        Message(bytes)
    }

    /// Adds an attribute, padded to four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Netlink> {
        // SAFETY: no memory is passed.
        let socket =
            own(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) })?;
        Ok(Netlink { socket, sequence: 0 })
    }

    pub fn set_up(&mut self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link(index, libc::IFF_UP as u32));
        if let Some(mtu) = mtu {
            message = message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.request(message).map(drop)
    }

    /// Of an interface that is up too: virtio-net takes it at once.
    pub fn set_mac(&mut self, index: u32, octets: [u8; 6]) -> io::Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link(index, 0));
        self.request(message.attribute(libc::IFLA_ADDRESS, &octets)).map(drop)
    }

    pub fn add_address(&mut self, index: u32, subnet: &Subnet) -> io::Result<()> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.request(address(libc::RTM_NEWADDR, flags, index, subnet)).map(drop)
    }

    pub fn remove_address(&mut self, index: u32, subnet: &Subnet) -> io::Result<()> {
        self.request(address(libc::RTM_DELADDR, libc::NLM_F_ACK, index, subnet)).map(drop)
    }

    /// The interface's addresses, those that the kernel gives itself (IPv6 link-local) left out.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<Subnet>> {
        let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]);
        let answers = self.request(message)?;
        Ok(answers.iter().filter_map(|body| parse_address(body, index)).collect())
    }

    /// All interfaces' addresses.
    pub fn all_addresses(&mut self) -> io::Result<Vec<Subnet>> {
        let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]);
        Ok(self.request(message)?.iter().filter_map(|body| subnet_in(body)).collect())
    }

    pub fn set_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let message = Message::new(libc::RTM_NEWROUTE, flags, &route(gateway))
            .attribute(libc::RTA_GATEWAY, &octets(gateway))
            .attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.request(message).map(drop)
    }

    pub fn remove_default_route6(&mut self, index: u32) -> io::Result<()> {
        let body = route(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let message = Message::new(libc::RTM_DELROUTE, libc::NLM_F_ACK, &body);
        self.request(message.attribute(libc::RTA_OIF, &index.to_ne_bytes())).map(drop)
    }

    /// Sends a message and returns the bodies of what the kernel answers, once it has said that this is all.
    fn request(&mut self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        // SAFETY: pointer and length are those of a live vector.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        check(sent as libc::c_int)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER];
        loop {
            // SAFETY: pointer and length are those of a live vector.
            let count = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let count = check(count as libc::c_int)? as usize;
            if take_answers(&buffer[..count], self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Collects the messages of one datagram. True when the answer is complete.
fn take_answers(mut datagram: &[u8], sequence: u32, answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = libc::c_int::from(u16::from_ne_bytes([header[4], header[5]]));
        let answers_to = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        if length < HEADER || length > datagram.len() {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        let body = &datagram[HEADER..length];
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
        if answers_to != sequence {
            continue;
        }
        match kind {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let errno = body.first_chunk().map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
                return if errno == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-errno)) };
            }
            _ => answers.push(body.to_vec()),
        }
    }
    Ok(false)
}

/// `struct ifinfomsg`
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// `struct ifaddrmsg` and the address, twice: IFA_LOCAL is the one that counts for IPv4.
fn address(kind: u16, flags: libc::c_int, index: u32, subnet: &Subnet) -> Message {
    let own_flags = if subnet.address.is_ipv6() { NO_DUPLICATE_CHECK } else { 0 };
    let mut body = [family(subnet.address), subnet.prefix, own_flags, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let octets = octets(subnet.address);
    let mut message =
        Message::new(kind, flags, &body).attribute(libc::IFA_LOCAL, &octets).attribute(libc::IFA_ADDRESS, &octets);
    if let IpAddr::V4(ip) = subnet.address
        && subnet.prefix < 31
        && kind == libc::RTM_NEWADDR
    {
        let broadcast = Ipv4Addr::from_bits(ip.to_bits() | u32::MAX.checked_shr(subnet.prefix.into()).unwrap_or(0));
        message = message.attribute(libc::IFA_BROADCAST, &broadcast.octets());
    }
    message
}

/// `struct rtmsg` of a default route.
fn route(gateway: IpAddr) -> [u8; 12] {
    let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT);
    [family(gateway), 0, 0, 0, table, protocol, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]
}

fn parse_address(body: &[u8], index: u32) -> Option<Subnet> {
    if body.get(4..8)? != index.to_ne_bytes() || body[3] != libc::RT_SCOPE_UNIVERSE {
        return None;
    }
    subnet_in(body)
}

fn subnet_in(body: &[u8]) -> Option<Subnet> {
    let prefix = *body.get(1)?;
    let mut attributes = body.get(8..)?;
    let mut found = None;
    while let [low, high, kind_low, kind_high, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = attributes.get(4..length)?;
        match u16::from_ne_bytes([kind_low, kind_high]) {
            libc::IFA_LOCAL => {
                return Some(Subnet { address: parse_octets(value)?, prefix });
            }
            libc::IFA_ADDRESS => found = parse_octets(value),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found.map(|address| Subnet { address, prefix })
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn parse_octets(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_parsed_strictly() {
        assert_eq!(Subnet::parse("10.0.2.15/24").map(|subnet| subnet.prefix), Some(24));
        assert!(Subnet::parse("fd00::2/64").is_some());
        for wrong in ["10.0.2.15", "10.0.2.15/33", "fd00::2/129", "host/24", "10.0.2.15/-1", ""] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_message_is_laid_out_as_the_kernel_wants() {
        let subnet = Subnet::parse("10.0.2.15/24").expect("a subnet");
        let bytes = address(libc::RTM_NEWADDR, libc::NLM_F_ACK, 3, &subnet).finish(9);
        let mut expected = vec![48, 0, 0, 0, 20, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 24, 0, 0, 3, 0, 0, 0]);
        expected.extend([8, 0, 2, 0, 10, 0, 2, 15, 8, 0, 1, 0, 10, 0, 2, 15, 8, 0, 4, 0, 10, 0, 2, 255]);
        assert_eq!(bytes, expected);
        assert_eq!(parse_address(&bytes[HEADER..], 3), Some(subnet));
        assert_eq!(parse_address(&bytes[HEADER..], 4), None);
    }

    #[test]
    fn hostile_answers_are_refused_or_ignored() {
        let mut answers = Vec::new();
        assert!(take_answers(&[255; 16], 1, &mut answers).is_err());
        assert!(take_answers(&[0; 16], 1, &mut answers).is_err());
        assert!(!take_answers(&[1, 2, 3], 1, &mut answers).expect("too short for a message"));
        let mut body = vec![2, 24, 0, 0, 3, 0, 0, 0];
        body.extend([0, 0, 2, 0, 1]);
        assert_eq!(parse_address(&body, 3), None);
    }

    #[test]
    fn the_kernel_lists_the_loopback_addresses() {
        let mut netlink = Netlink::open().expect("a netlink socket");
        // Scope host, so left out: what matters is that the dump is read to its end.
        assert_eq!(netlink.addresses(1).expect("a dump"), []);
        let loopback = Subnet::parse("127.0.0.1/8").expect("a subnet");
        assert!(netlink.all_addresses().expect("a dump").contains(&loopback));
        address_changes().expect("a socket");
    }
}
