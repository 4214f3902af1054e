//! What a guest is told of a packet that goes nowhere, so that its program knows at once: a reset of a TCP connection, "administratively prohibited" of
//! everything else.

use super::packet::{
    ECHO6, ETHERNET_HEADER, ICMP, ICMPV6, IPV4_HEADER, IPV6, IPV6_HEADER, TCP, UDP, behind_header6, ethertype,
    header_length,
};

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const PROHIBITED: u8 = 13;
/// The same of ICMPv6 (RFC 4443), and the longest packet that carries it: what any link takes.
const UNREACHABLE6: u8 = 1;
const PROHIBITED6: u8 = 1;
const ERROR6_MAX: usize = 1280;
/// Flags of TCP.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The frame that answers `frame`; none for what must not be answered: a reset, a later fragment, an ICMP message but for an echo request.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let (protocol, reply) = if ethertype(frame) == IPV6 { refusal6(packet)? } else { refusal4(packet)? };
    Some(back(frame, protocol, reply))
}

fn refusal4(packet: &[u8]) -> Option<(u8, Vec<u8>)> {
    let header = header_length(packet)?;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]])).min(packet.len());
    if u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0 || total < header {
        return None;
    }
    let body = &packet[header..total];
    match packet[9] {
        TCP => Some((TCP, reset(body)?)),
        // An error is never answered by an error.
        ICMP if body.first() != Some(&ECHO) => None,
        _ => Some((ICMP, error(UNREACHABLE, PROHIBITED, &packet[..total.min(header + 8)]))),
    }
}

fn refusal6(packet: &[u8]) -> Option<(u8, Vec<u8>)> {
    let body = behind_header6(packet)?;
    match packet[6] {
        TCP => Some((TCP, reset(body)?)),
        ICMPV6 if body.first() != Some(&ECHO6) => None,
        _ => {
            let told = (IPV6_HEADER + body.len()).min(ERROR6_MAX - IPV6_HEADER - ICMP_HEADER);
            Some((ICMPV6, error(UNREACHABLE6, PROHIBITED6, &packet[..told])))
        }
    }
}

/// The frame of a UDP datagram that answers that of `frame`.
pub fn datagram_back(frame: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let body = if ethertype(frame) == IPV6 { behind_header6(packet)? } else { packet.get(header_length(packet)?..)? };
    let ports = body.first_chunk::<4>()?;
    let mut datagram = vec![ports[2], ports[3], ports[0], ports[1]];
    datagram.extend(((UDP_HEADER + message.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(message);
    Some(back(frame, UDP, datagram))
}

/// Where the checksum of a protocol is in what it carries.
fn checksum_at(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    }
}

/// A frame to whoever sent `frame`, from where that was sent to, whose body gets its checksum.
fn back(frame: &[u8], protocol: u8, mut body: Vec<u8>) -> Vec<u8> {
    let packet = &frame[ETHERNET_HEADER..];
    let (header, pseudo) = if ethertype(frame) == IPV6 {
        let header = ip_header6(packet, protocol, body.len());
        let pseudo = [&header[8..], &(body.len() as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat();
        (header.to_vec(), pseudo)
    } else {
        let header = ip_header(packet, protocol, body.len());
        let pseudo = [&header[12..], &[0, protocol], &(body.len() as u16).to_be_bytes()].concat();
        (header.to_vec(), pseudo)
    };
    // That of ICMP is about itself alone.
    let sum = if protocol == ICMP { checksum(&[&body]) } else { checksum(&[&pseudo, &body]) };
    // UDP's 0 would say that there is none.
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    let at = checksum_at(protocol);
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    [&frame[6..12], &frame[..6], &frame[12..ETHERNET_HEADER], &header, &body].concat()
}

fn ip_header(packet: &[u8], protocol: u8, length: usize) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((IPV4_HEADER + length) as u16).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&packet[16..20]);
    header[16..20].copy_from_slice(&packet[12..16]);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ip_header6(packet: &[u8], protocol: u8, length: usize) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    header[6] = protocol;
    header[7] = 64;
    header[8..24].copy_from_slice(&packet[24..40]);
    header[24..40].copy_from_slice(&packet[8..24]);
    header
}

/// Without its checksum.
fn reset(segment: &[u8]) -> Option<Vec<u8>> {
    if segment.len() < TCP_HEADER {
        return None;
    }
    let flags = segment[13];
    if flags & RST != 0 {
        return None;
    }
    let offset = (usize::from(segment[12] >> 4) * 4).clamp(TCP_HEADER, segment.len());
    let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let (sequence, acknowledged, ours) = if flags & ACK != 0 {
        (number(8), 0, RST)
    } else {
        let occupied = (segment.len() - offset) as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, number(4).wrapping_add(occupied), RST | ACK)
    };
    let mut reply = Vec::with_capacity(TCP_HEADER);
    reply.extend(&segment[2..4]);
    reply.extend(&segment[..2]);
    reply.extend(sequence.to_be_bytes());
    reply.extend(acknowledged.to_be_bytes());
    reply.extend([(TCP_HEADER as u8 / 4) << 4, ours, 0, 0, 0, 0, 0, 0]);
    Some(reply)
}

/// Without its checksum. @param beginning of the packet that it tells of
fn error(kind: u8, code: u8, beginning: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    debug_assert!(message.len() == ICMP_HEADER);
    message.extend(beginning);
    message
}

/// Of the Internet (RFC 1071); each part but the last has an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{frame6, segment};
    use super::*;

    fn syn() -> Vec<u8> {
        let mut frame = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, TCP, 0, 0, 10, 0, 2, 15, 192, 168, 1, 1]);
        frame.extend([0x80, 1, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, SYN, 1, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_connection_that_begins_is_reset_from_where_it_went_to() {
        let reply = answer(&syn()).expect("a reset");
        assert_eq!(&reply[..14], &[2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 8, 0]);
        let packet = &reply[14..];
        assert_eq!((&packet[12..16], &packet[16..20]), (&[192, 168, 1, 1][..], &[10, 0, 2, 15][..]));
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let segment = &packet[20..];
        assert_eq!((&segment[..2], &segment[2..4]), (&[0, 80][..], &[0x80, 1][..]));
        assert_eq!((&segment[8..12], segment[13]), (&[0, 0, 0, 10][..], RST | ACK));
        let pseudo = [&packet[12..20], &[0, TCP, 0, 20]].concat();
        assert_eq!(checksum(&[&pseudo, segment]), 0);
    }

    #[test]
    fn one_that_is_under_way_is_reset_where_it_stands_and_a_reset_is_not_answered() {
        let mut frame = syn();
        frame[14 + 20 + 13] = ACK;
        frame[14 + 20 + 8..14 + 20 + 12].copy_from_slice(&[1, 2, 3, 4]);
        let reply = answer(&frame).expect("a reset");
        assert_eq!((&reply[14 + 24..14 + 28], reply[14 + 33]), (&[1, 2, 3, 4][..], RST));
        frame[14 + 20 + 13] = RST;
        assert_eq!(answer(&frame), None);
    }

    #[test]
    fn a_datagram_is_answered_with_its_beginning() {
        let mut frame = syn();
        frame[14 + 9] = 17;
        let reply = answer(&frame).expect("an ICMP message");
        let message = &reply[14 + 20..];
        assert_eq!((message[0], message[1], checksum(&[message])), (UNREACHABLE, PROHIBITED, 0));
        assert_eq!(&message[8..], &frame[14..14 + 28]);
        frame[14 + 9] = ICMP;
        assert_eq!(answer(&frame), None);
        frame[14 + 20] = ECHO;
        assert!(answer(&frame).is_some_and(|reply| reply[14 + 20] == UNREACHABLE));
    }

    /// Header and body of an IPv6 packet, whose checksum is right.
    fn sound6(frame: &[u8]) -> (&[u8], &[u8]) {
        let packet = &frame[14..];
        let body = behind_header6(packet).expect("a whole packet");
        let pseudo = [&packet[8..40], &(body.len() as u32).to_be_bytes(), &[0, 0, 0, packet[6]]].concat();
        assert_eq!(checksum(&[&pseudo, body]), 0);
        (&packet[..40], body)
    }

    #[test]
    fn over_ipv6_it_is_the_same() {
        let frame = frame6("2001:db8::1", TCP, &segment(443));
        let reply = answer(&frame).expect("a reset");
        let (header, body) = sound6(&reply);
        assert_eq!((&header[8..24], &header[24..40]), (&frame[38..54], &frame[22..38]));
        assert_eq!((&body[..4], &body[8..12], body[13]), (&[1, 187, 0x80, 0][..], &[0, 0, 0, 10][..], RST | ACK));
        let long = frame6("2001:db8::1", UDP, &[7; 2000]);
        let reply = answer(&long).expect("an error");
        let (header, body) = sound6(&reply);
        assert_eq!((header[6], body[0], body[1], reply.len()), (ICMPV6, UNREACHABLE6, PROHIBITED6, 14 + ERROR6_MAX));
        assert_eq!(&body[8..], &long[14..14 + 1232]);
        assert!(answer(&frame6("2001:db8::1", ICMPV6, &[ECHO6, 0, 0, 0])).is_some());
        assert_eq!(answer(&frame6("2001:db8::1", ICMPV6, &[UNREACHABLE6, 0, 0, 0])), None);
        let told =
            datagram_back(&frame6("2001:db8::1", UDP, &[0x80, 0, 0, 53, 0, 8, 0, 0]), b"hello").expect("a frame");
        let (_, body) = sound6(&told);
        assert_eq!((&body[..4], &body[8..]), (&[0, 53, 0x80, 0][..], &b"hello"[..]));
    }

    #[test]
    fn no_bytes_break_it() {
        for whole in [syn(), frame6("2001:db8::1", TCP, &segment(443)), frame6("2001:db8::1", UDP, &[0; 8])] {
            for length in 0..whole.len() {
                answer(&whole[..length]);
                datagram_back(&whole[..length], &[1, 2, 3]);
            }
            for at in 12..whole.len() {
                for value in [0, 1, 0x4f, 0x80, 0x86, 0xdd, 0xff] {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    answer(&changed);
                    datagram_back(&changed, &[1, 2, 3]);
                }
            }
        }
    }
}
