//! What a frame of a guest is, as far as it concerns who may send it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ETHERNET_HEADER: usize = 14;
/// Where its type is in an Ethernet header, and types.
const ETHERTYPE: usize = 12;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
/// Least length of an IPv4 header.
pub const IPV4_HEADER: usize = 20;
pub const IPV6_HEADER: usize = 40;
/// Protocols.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
/// Kinds of ICMPv6 messages.
pub const ECHO6: u8 = 128;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Length of a neighbour solicitation without options: its header, and the address that is asked for.
const SOLICITATION: usize = 24;

/// Where a packet goes to, and what that takes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub address: IpAddr,
    pub protocol: u8,
    /// Of TCP and UDP, where the packet tells.
    pub port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// ARP, or its like of IPv6: a question for the hardware address of a neighbour.
    Question,
    /// To somewhere. What is written down of it, and the port that it comes from.
    To(Destination, Option<u16>),
    /// Over IPv6, and nothing that a guest need send: another protocol, or headers between that of IPv6 and the one of the protocol, which could hide anything.
    Odd(Destination),
    /// Nothing that deserves an answer.
    Nothing,
}

pub fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[ETHERTYPE], frame[ETHERTYPE + 1]])
}

/// A VLAN tag would hide what is behind it: such a frame is nothing.
pub fn read(frame: &[u8]) -> Sent {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else {
        return Sent::Nothing;
    };
    match ethertype(frame) {
        ARP => Sent::Question,
        IPV4 => read4(packet).unwrap_or(Sent::Nothing),
        IPV6 => read6(packet).unwrap_or(Sent::Nothing),
        _ => Sent::Nothing,
    }
}

/// Length of an IPv4 header, where the packet holds a whole one.
pub fn header_length(packet: &[u8]) -> Option<usize> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let sound = packet[0] >> 4 == 4 && length >= IPV4_HEADER && packet.len() >= length;
    sound.then_some(length)
}

/// What follows the header of an IPv6 packet, where both are whole.
pub fn behind_header6(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.first_chunk::<IPV6_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6).then(|| packet.get(IPV6_HEADER..IPV6_HEADER + length))?
}

pub fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

fn read4(packet: &[u8]) -> Option<Sent> {
    let header = header_length(packet)?;
    let address = Ipv4Addr::from(*packet[16..].first_chunk::<4>()?).into();
    let protocol = packet[9];
    // A later fragment has no ports, and an earlier one's cannot be relied on.
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    let tells = !fragment && has_ports(protocol);
    let (from, port) = ports(&packet[header..]).filter(|_| tells).unzip();
    Some(Sent::To(Destination { address, protocol, port }, from))
}

fn read6(packet: &[u8]) -> Option<Sent> {
    let body = behind_header6(packet)?;
    let address = Ipv6Addr::from(*packet[24..].first_chunk::<16>()?);
    let protocol = packet[6];
    let to = Destination { address: address.into(), protocol, port: None };
    Some(match (protocol, body.first()) {
        (TCP | UDP, _) => {
            let (from, port) = ports(body).unzip();
            port?;
            Sent::To(Destination { port, ..to }, from)
        }
        (ICMPV6, Some(&ECHO6)) => Sent::To(to, None),
        (ICMPV6, _) if asks_for_neighbour(packet, body) => Sent::Question,
        // Of errors nobody is told, and what else there is speaks to routers.
        (ICMPV6, _) => return None,
        _ => Sent::Odd(to),
    })
}

/// As RFC 4861 has it, from an address: what a guest sends to find out whether its own is taken gets no answer anyway.
fn asks_for_neighbour(packet: &[u8], message: &[u8]) -> bool {
    let Some(head) = message.first_chunk::<SOLICITATION>() else {
        return false;
    };
    let from: [u8; 16] = std::array::from_fn(|at| packet[8 + at]);
    let target: [u8; 16] = std::array::from_fn(|at| head[8 + at]);
    let from_one = from != [0; 16] && !Ipv6Addr::from(from).is_multicast();
    (packet[7], head[0], head[1]) == (255, NEIGHBOUR_SOLICITATION, 0)
        && from_one
        && !Ipv6Addr::from(target).is_multicast()
}

/// That of its own, and that of the other side.
fn ports(body: &[u8]) -> Option<(u16, u16)> {
    let bytes = body.first_chunk::<4>()?;
    Some((u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A TCP, UDP or other packet over IPv4 from 10.0.2.15, port 0x8000.
    pub fn frame(to: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4.to_be_bytes());
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15]);
        frame.extend(to);
        frame.extend([0x80, 0]);
        frame.extend(port.to_be_bytes());
        frame.resize(ETHERNET_HEADER + 40, 0);
        frame
    }

    /// The same over IPv6.
    pub fn frame6(to: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV6.to_be_bytes());
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((body.len() as u16).to_be_bytes());
        frame.extend([protocol, 255]);
        frame.extend(Ipv6Addr::new(0xfd62, 0x616e, 0x6765, 0x7200, 0, 0, 0, 0x15).octets());
        frame.extend(to.parse::<Ipv6Addr>().expect("an address").octets());
        frame.extend(body);
        frame
    }

    pub fn segment(port: u16) -> Vec<u8> {
        let mut body = vec![0x80, 0];
        body.extend(port.to_be_bytes());
        body.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        body
    }

    fn solicitation(target: &str) -> Vec<u8> {
        let mut body = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        body.extend(target.parse::<Ipv6Addr>().expect("an address").octets());
        body.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        body
    }

    #[test]
    fn packets_tell_where_they_go_to() {
        let four = Destination { address: Ipv4Addr::new(8, 8, 8, 8).into(), protocol: UDP, port: Some(53) };
        assert_eq!(read(&frame([8, 8, 8, 8], UDP, 53)), Sent::To(four, Some(0x8000)));
        let six: IpAddr = "2001:db8::1".parse().expect("an address");
        let tcp = Destination { address: six, protocol: TCP, port: Some(443) };
        assert_eq!(read(&frame6("2001:db8::1", TCP, &segment(443))), Sent::To(tcp, Some(0x8000)));
        let ping = Destination { address: six, protocol: ICMPV6, port: None };
        assert_eq!(read(&frame6("2001:db8::1", ICMPV6, &[ECHO6, 0, 0, 0])), Sent::To(ping, None));
    }

    #[test]
    fn of_ipv6_only_what_is_plain_goes_on() {
        // Hop by hop, routing, fragment, options, none, authentication, encrypted, IPv4 and IPv6 within, GRE.
        for protocol in [0, 43, 44, 60, 59, 51, 50, 4, 41, 47, 135, 139, 140, 253, 255] {
            let mut body = vec![TCP, 0, 0, 0, 0, 0, 0, 0];
            body.extend(segment(443));
            assert!(matches!(read(&frame6("2001:db8::1", protocol, &body)), Sent::Odd(_)), "{protocol}");
        }
        // Cut off in its ports, or before its length is reached.
        assert_eq!(read(&frame6("2001:db8::1", TCP, &[0x80, 0, 1])), Sent::Nothing);
        let whole = frame6("2001:db8::1", TCP, &segment(443));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Sent::Nothing, "{length}");
        }
        for (at, value) in [(0, 0x40), (0, 0x70)] {
            let mut broken = whole.clone();
            broken[ETHERNET_HEADER + at] = value;
            assert_eq!(read(&broken), Sent::Nothing);
        }
    }

    #[test]
    fn of_what_neighbours_say_to_one_another_only_the_question_is_heard() {
        let good = frame6("ff02::1:ff00:2", ICMPV6, &solicitation("fd62:616e:6765:7200::2"));
        assert_eq!(read(&good), Sent::Question);
        let message = ETHERNET_HEADER + IPV6_HEADER;
        // Router solicitation and advertisement, a neighbour's advertisement, a redirect; MLD, errors, an answer to a ping; a wrong code.
        for (at, value) in
            [133, 134, 136, 137, 130, 131, 143, 1, 2, 3, 129].map(|kind| (message, kind)).into_iter().chain([
                (message + 1, 1),
                // From beyond the link; for the address of many.
                (ETHERNET_HEADER + 7, 254),
                (message + 8, 0xff),
                (ETHERNET_HEADER + 8, 0xff),
            ])
        {
            let mut other = good.clone();
            other[at] = value;
            assert_eq!(read(&other), Sent::Nothing, "{at}: {value}");
        }
        let mut own = good.clone();
        own[ETHERNET_HEADER + 8..ETHERNET_HEADER + 24].fill(0);
        assert_eq!(read(&own), Sent::Nothing);
        assert_eq!(read(&frame6("ff02::1", ICMPV6, &solicitation("::1")[..23])), Sent::Nothing);
    }

    #[test]
    fn no_bytes_break_it() {
        for whole in [
            frame([8, 8, 8, 8], TCP, 80),
            frame6("2001:db8::1", TCP, &segment(443)),
            frame6("ff02::1:ff00:2", ICMPV6, &solicitation("fe80::1")),
        ] {
            for at in ETHERTYPE..whole.len() {
                for value in [0, 1, 0x3f, 0x44, 0x4f, 0x60, 0x80, 0xff] {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    read(&changed);
                }
            }
        }
    }
}
