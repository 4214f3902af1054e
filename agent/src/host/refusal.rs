//! What a guest is told of a packet that goes nowhere, so that its program knows at once: a reset of a TCP connection, "administratively prohibited" of
//! everything else.

use super::policy::{TCP, UDP, header_length};

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP: u8 = 1;
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const PROHIBITED: u8 = 13;
/// Flags of TCP.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The frame that answers `frame`; none for what must not be answered: a reset, a later fragment, an ICMP message but for an echo request.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let header = header_length(packet)?;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]])).min(packet.len());
    if u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0 || total < header {
        return None;
    }
    let body = &packet[header..total];
    let reply = match packet[9] {
        TCP => reset(packet, body)?,
        // An error is never answered by an error.
        ICMP if body.first() != Some(&ECHO) => return None,
        _ => prohibited(&packet[..total.min(header + 8)]),
    };
    let protocol = if packet[9] == TCP { TCP } else { ICMP };
    let mut answer = Vec::with_capacity(ETHERNET_HEADER + IPV4_HEADER + reply.len());
    answer.extend(&frame[6..12]);
    answer.extend(&frame[..6]);
    answer.extend(&frame[12..ETHERNET_HEADER]);
    answer.extend(ip_header(packet, protocol, reply.len()));
    answer.extend(reply);
    Some(answer)
}

/// The frame of a UDP datagram that answers that of `frame`.
pub fn datagram_back(frame: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let ports = packet.get(header_length(packet)?..)?.first_chunk::<4>()?;
    let length = UDP_HEADER + message.len();
    let mut answer = frame[6..12].to_vec();
    answer.extend(&frame[..6]);
    answer.extend(&frame[12..ETHERNET_HEADER]);
    answer.extend(ip_header(packet, UDP, length));
    answer.extend([ports[2], ports[3], ports[0], ports[1]]);
    answer.extend((length as u16).to_be_bytes());
    // Without a checksum, as IPv4 allows.
    answer.extend([0, 0]);
    answer.extend(message);
    Some(answer)
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

fn reset(packet: &[u8], segment: &[u8]) -> Option<Vec<u8>> {
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
    let pseudo = [&packet[16..20], &packet[12..16], &[0, TCP, 0, TCP_HEADER as u8]].concat();
    let sum = checksum(&[&pseudo, &reply]);
    reply[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(reply)
}

/// @param beginning the header of the packet and the first 8 bytes behind it
fn prohibited(beginning: &[u8]) -> Vec<u8> {
    let mut reply = vec![UNREACHABLE, PROHIBITED, 0, 0, 0, 0, 0, 0];
    debug_assert!(reply.len() == ICMP_HEADER);
    reply.extend(beginning);
    let sum = checksum(&[&reply]);
    reply[2..4].copy_from_slice(&sum.to_be_bytes());
    reply
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

    #[test]
    fn no_bytes_break_it() {
        let whole = syn();
        for length in 0..whole.len() {
            answer(&whole[..length]);
        }
        for at in 14..whole.len() {
            for value in [0, 1, 0x4f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                answer(&changed);
            }
        }
    }
}
