//! Stands between QEMU and passt and drops what no guest may send. A guest owns its network card: whatever its routes say, it can put any
//! destination into a packet, and passt connects to it on the host, whose loopback is then an address like any other. On the way back it
//! drops what would end connections of containers in the guest.
//!
//! Descriptor 0 is QEMU's socket, 1 is passt's; both carry Ethernet frames behind a big-endian u32 of their length. It ends when either does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::thread;

/// Length prefix of a frame, in bytes.
pub(super) const PREFIX: usize = 4;
/// Longest frame: what QEMU's virtio-net can send, 64 KiB of IP and its headers, with room to spare. More is a broken stream.
pub(super) const FRAME_MAX: usize = 96 * 1024;
const BUFFER: usize = 256 * 1024;

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
/// Offset of the destination in an IPv4 header, and the header's least length.
const IPV4_DESTINATION: usize = 16;
const IPV4_HEADER: usize = 20;
/// Offset of the protocol, its number for TCP, and where in a TCP header the flags are.
const IPV4_PROTOCOL: usize = 9;
const TCP: u8 = 6;
const TCP_FLAGS: usize = 13;

/// Relays until one side ends.
pub fn run() -> io::Result<()> {
    // SAFETY: both were given to this process to own.
    let (mut qemu, mut passt) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    let (mut from_passt, mut to_qemu) = (passt.try_clone()?, qemu.try_clone()?);
    let answers = thread::spawn(move || {
        let ended = filter(&mut from_passt, &mut to_qemu, may_enter);
        // The other direction waits in a read that only this ends.
        shut_down(&to_qemu);
        ended
    });
    let sent = filter(&mut qemu, &mut passt, may_leave);
    shut_down(&passt);
    drop(answers.join());
    sent
}

fn shut_down(socket: &File) {
    // SAFETY: no memory is passed; the descriptor is open. Failing means that the socket is closed already.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Copies whole frames, without those that are not allowed.
fn filter(from: &mut impl Read, to: &mut impl Write, may_pass: fn(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = match from.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        let (allowed, taken) = sift(&mut buffer[..filled], may_pass)?;
        to.write_all(&buffer[..allowed])?;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// Moves the allowed frames of `bytes` to its front. Returns how many bytes they are, and how many bytes whole frames took.
fn sift(bytes: &mut [u8], may_pass: fn(&[u8]) -> bool) -> io::Result<(usize, usize)> {
    let (mut allowed, mut at) = (0, 0);
    while let Some(prefix) = bytes[at..].first_chunk::<PREFIX>() {
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame longer than any"));
        }
        let end = at + PREFIX + length;
        let Some(frame) = bytes.get(at + PREFIX..end) else { break };
        if may_pass(frame) {
            if allowed < at {
                bytes.copy_within(at..end, allowed);
            }
            allowed += end - at;
        }
        at = end;
    }
    Ok((allowed, at))
}

/// Only ARP and IPv4: passt serves no IPv6 here, and a VLAN tag would hide what is behind it.
pub(super) fn may_leave(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else { return false };
    match u16::from_be_bytes([frame[ETHERTYPE], frame[ETHERTYPE + 1]]) {
        ARP => true,
        IPV4 => {
            packet.len() >= IPV4_HEADER
                && packet[IPV4_DESTINATION..].first_chunk::<4>().is_some_and(|to| may_reach(Ipv4Addr::from(*to)))
        }
        _ => false,
    }
}

/// All but TCP segments without any flag, as passt sends them to tell of its window. Linux drops them, but where the guest translates
/// addresses for a container, its connection tracking knows no connection for such a segment, and the guest answers it with a reset.
pub(super) fn may_enter(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else { return true };
    if u16::from_be_bytes([frame[ETHERTYPE], frame[ETHERTYPE + 1]]) != IPV4 || packet.get(IPV4_PROTOCOL) != Some(&TCP) {
        return true;
    }
    packet.get(usize::from(packet[0] & 15) * 4 + TCP_FLAGS) != Some(&0)
}

/// The host's loopback (0.0.0.0 is another name of it), link-local addresses, among them the metadata services of clouds, and what is
/// no single host.
fn may_reach(destination: Ipv4Addr) -> bool {
    let first = destination.octets()[0];
    !(first == 0 || first >= 224 || destination.is_loopback() || destination.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::{ARP, FRAME_MAX, IPV4, filter, may_enter, may_leave, sift};

    fn frame(ethertype: u16, destination: [u8; 4], payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 12];
        packet.extend(ethertype.to_be_bytes());
        packet.extend([0x45; 16]);
        packet.extend(destination);
        packet.resize(packet.len() + payload, 7);
        let mut bytes = (packet.len() as u32).to_be_bytes().to_vec();
        bytes.extend(packet);
        bytes
    }

    fn passed(input: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        filter(&mut &*input, &mut output, may_leave).expect("a sound stream");
        output
    }

    #[test]
    fn ordinary_destinations_pass_unchanged() {
        let input = [frame(IPV4, [93, 184, 216, 34], 100), frame(ARP, [10, 0, 2, 2], 0), frame(IPV4, [10, 0, 2, 3], 9)]
            .concat();
        assert_eq!(passed(&input), input);
    }

    #[test]
    fn the_hosts_loopback_link_local_and_group_addresses_are_dropped() {
        for to in [
            [127, 0, 0, 1],
            [127, 255, 255, 254],
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [169, 254, 169, 254],
            [224, 0, 0, 251],
            [255, 255, 255, 255],
        ] {
            let good = frame(IPV4, [1, 1, 1, 1], 3);
            let input = [good.clone(), frame(IPV4, to, 50), good.clone()].concat();
            assert_eq!(passed(&input), [good.clone(), good].concat(), "{to:?}");
        }
    }

    #[test]
    fn what_hides_its_destination_is_dropped() {
        for ethertype in [0x86dd, 0x8100, 0x88a8, 0x1234] {
            assert!(passed(&frame(ethertype, [1, 1, 1, 1], 40)).is_empty());
        }
        assert!(passed(&[&[0, 0, 0, 13][..], &[0; 13]].concat()).is_empty());
        let mut short = frame(IPV4, [1, 1, 1, 1], 0);
        short.truncate(30);
        short[3] = 26;
        assert!(passed(&short).is_empty());
    }

    /// A TCP segment with these flags behind an IPv4 header of so many words.
    fn segment(words: u8, protocol: u8, flags: u8) -> Vec<u8> {
        let mut bytes = frame(IPV4, [10, 0, 2, 15], usize::from(words) * 4);
        let packet = &mut bytes[4 + 14..];
        packet[0] = 0x40 | words;
        packet[9] = protocol;
        packet[usize::from(words) * 4 + 13] = flags;
        bytes
    }

    #[test]
    fn of_what_comes_back_only_segments_without_a_flag_are_dropped() {
        let sound = [
            segment(5, 6, 0x10),
            segment(5, 6, 0x04),
            segment(8, 6, 0x18),
            segment(5, 17, 0),
            frame(ARP, [10, 0, 2, 2], 0),
            frame(IPV4, [10, 0, 2, 15], 0),
        ]
        .concat();
        let input = [segment(5, 6, 0), sound.clone(), segment(8, 6, 0), segment(15, 6, 0), sound.clone()].concat();
        let mut output = Vec::new();
        filter(&mut &*input, &mut output, may_enter).expect("a sound stream");
        assert_eq!(output, [sound.clone(), sound].concat());
    }

    #[test]
    fn a_frame_in_pieces_waits_for_its_rest() {
        let whole = frame(IPV4, [8, 8, 8, 8], 200);
        for cut in 0..whole.len() {
            let mut part = whole[..cut].to_vec();
            assert_eq!(sift(&mut part, may_leave).expect("sound"), (0, 0));
        }
    }

    #[test]
    fn a_length_no_frame_has_ends_the_stream() {
        let mut bytes = ((FRAME_MAX + 1) as u32).to_be_bytes().to_vec();
        assert!(sift(&mut bytes, may_leave).is_err());
    }
}
