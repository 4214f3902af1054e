//! Stands between QEMU and passt and lets through what the policy allows. A guest owns its network card: whatever its routes say, it can put any
//! destination into a packet, and passt connects to it on the host, whose loopback is then an address like any other. On the way back it
//! drops what would end connections of containers in the guest.
//!
//! Descriptor 0 is QEMU's socket, 1 is passt's; both carry Ethernet frames behind a big-endian u32 of their length. It ends when either does.

use super::attached::Attached;
use super::gate::{Admission, Gate};
use super::packet::{ETHERNET_HEADER, IPV4, IPV6, IPV6_HEADER, TCP, ethertype};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Length prefix of a frame, in bytes.
pub(super) const PREFIX: usize = 4;
/// Longest frame: what QEMU's virtio-net can send, 64 KiB of IP and its headers, with room to spare. More is a broken stream.
pub(super) const FRAME_MAX: usize = 96 * 1024;
const BUFFER: usize = 256 * 1024;

/// Offset of the protocol in an IPv4 header and in one of IPv6, and where in a TCP header the flags are.
const IPV4_PROTOCOL: usize = 9;
const IPV6_PROTOCOL: usize = 6;
const TCP_FLAGS: usize = 13;

/// Relays until one side ends. `rules`: the file of the policy.
pub fn run(rules: &Path) -> io::Result<()> {
    // SAFETY: both were given to this process to own.
    let (mut qemu, mut passt) = unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) };
    let mut from_passt = passt.try_clone()?;
    // Whole frames go to QEMU from all threads.
    let to_qemu = Arc::new(Mutex::new(qemu.try_clone()?));
    let of_team = to_qemu.clone();
    // A guest that is gone ends the other threads, and this process with them.
    let deliver = Arc::new(move |frame: &[u8]| drop(write_frame(&of_team, frame)));
    // Without news of the host's networks those in the rules count.
    let gate = Gate::open(rules, deliver, Attached::open().ok())?;
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let ended = filter(&mut from_passt, &mut Shared(&to_qemu), |frame| entering(&gate, frame), &to_qemu);
            // The other direction waits in a read that only this ends.
            shut_down(&to_qemu.lock().unwrap_or_else(PoisonError::into_inner));
            ended
        });
        let sent = filter(&mut qemu, &mut passt, |frame| gate.admit(frame), &to_qemu);
        shut_down(&passt);
        drop(answers.join());
        sent
    })
}

fn shut_down(socket: &File) {
    // SAFETY: no memory is passed; the descriptor is open. Failing means that the socket is closed already.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Each write goes out whole, whoever else writes there.
struct Shared<'a, W>(&'a Mutex<W>);

impl<W: Write> Write for Shared<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies whole frames that may pass; what is refused is answered.
fn filter(
    from: &mut impl Read,
    to: &mut impl Write,
    admit: impl Fn(&[u8]) -> Admission,
    back: &Mutex<impl Write>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let Some(count) = read_some(from, &mut buffer[filled..])? else { return Ok(()) };
        filled += count;
        let whole = whole_frames(&buffer[..filled])?;
        let (mut allowed, mut at) = (0, 0);
        while at < whole {
            let end = at + PREFIX + length_at(&buffer[at..]).unwrap_or(0);
            match admit(&buffer[at + PREFIX..end]) {
                Admission::Pass => {
                    buffer.copy_within(at..end, allowed);
                    allowed += end - at;
                }
                Admission::Drop => {}
                Admission::Answer(frame) => write_frame(back, &frame)?,
            }
            at = end;
        }
        to.write_all(&buffer[..allowed])?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn write_frame(to: &Mutex<impl Write>, frame: &[u8]) -> io::Result<()> {
    let prefix = (frame.len() as u32).to_be_bytes();
    to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&[&prefix[..], frame].concat())
}

/// All but TCP segments without any flag, as passt sends them to tell of its window. Linux drops them, but where the guest translates
/// addresses for a container, its connection tracking knows no connection for such a segment, and the guest answers it with a reset.
pub(super) fn may_enter(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else { return true };
    let segment = match ethertype(frame) {
        IPV4 if packet.get(IPV4_PROTOCOL) == Some(&TCP) => usize::from(packet[0] & 15) * 4,
        IPV6 if packet.get(IPV6_PROTOCOL) == Some(&TCP) => IPV6_HEADER,
        _ => return true,
    };
    packet.get(segment + TCP_FLAGS) != Some(&0)
}

fn entering(gate: &Gate, frame: &[u8]) -> Admission {
    gate.learn(frame);
    if may_enter(frame) { Admission::Pass } else { Admission::Drop }
}

/// `None` at the end.
fn read_some(from: &mut impl Read, space: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match from.read(space) {
            Ok(0) => return Ok(None),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn length_at(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<PREFIX>().map(|prefix| u32::from_be_bytes(*prefix) as usize)
}

/// How many of the bytes are whole frames.
fn whole_frames(bytes: &[u8]) -> io::Result<usize> {
    let mut at = 0;
    while let Some(length) = length_at(&bytes[at..]) {
        if length > FRAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame longer than any"));
        }
        if bytes.len() < at + PREFIX + length {
            break;
        }
        at += PREFIX + length;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{frame6, segment as segment6};
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32 + 1).to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.resize(bytes.len() + payload, 7);
        bytes
    }

    /// Frames that begin with 1 pass, with 2 are answered by their payload, others dropped.
    fn admit(frame: &[u8]) -> Admission {
        match frame.first() {
            Some(1) => Admission::Pass,
            Some(2) => Admission::Answer(frame.to_vec()),
            _ => Admission::Drop,
        }
    }

    #[test]
    fn frames_pass_are_answered_or_dropped_one_by_one() {
        let input = [frame(1, 100), frame(3, 5), frame(2, 9), frame(1, 0), frame(2, 1), frame(1, 60_000)].concat();
        let (mut passed, back) = (Vec::new(), Mutex::new(Vec::new()));
        filter(&mut &input[..], &mut passed, admit, &back).expect("a sound stream");
        assert!(passed == [frame(1, 100), frame(1, 0), frame(1, 60_000)].concat());
        assert!(back.into_inner().expect("unpoisoned") == [frame(2, 9), frame(2, 1)].concat());
    }

    fn ethernet(ethertype: u16, destination: [u8; 4], payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 12];
        packet.extend(ethertype.to_be_bytes());
        packet.extend([0x45; 16]);
        packet.extend(destination);
        packet.resize(packet.len() + payload, 7);
        let mut bytes = (packet.len() as u32).to_be_bytes().to_vec();
        bytes.extend(packet);
        bytes
    }

    /// A TCP segment with these flags behind an IPv4 header of so many words.
    fn segment(words: u8, protocol: u8, flags: u8) -> Vec<u8> {
        let mut bytes = ethernet(IPV4, [10, 0, 2, 15], usize::from(words) * 4);
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
            ethernet(0x0806, [10, 0, 2, 2], 0),
            ethernet(IPV4, [10, 0, 2, 15], 0),
        ]
        .concat();
        let input = [segment(5, 6, 0), sound.clone(), segment(8, 6, 0), segment(15, 6, 0), sound.clone()].concat();
        let mut output = Vec::new();
        let enter = |frame: &[u8]| if may_enter(frame) { Admission::Pass } else { Admission::Drop };
        filter(&mut &*input, &mut output, enter, &Mutex::new(Vec::new())).expect("a sound stream");
        assert_eq!(output, [sound.clone(), sound].concat());
    }

    #[test]
    fn over_ipv6_too() {
        let mut frame = frame6("fd62:616e:6765:7200::15", TCP, &segment6(80));
        assert!(may_enter(&frame));
        frame[ETHERNET_HEADER + IPV6_HEADER + TCP_FLAGS] = 0;
        assert!(!may_enter(&frame));
        frame[ETHERNET_HEADER + IPV6_PROTOCOL] = 17;
        assert!(may_enter(&frame));
    }

    #[test]
    fn a_frame_in_pieces_waits_for_its_rest() {
        let whole = frame(1, 200);
        for cut in 0..whole.len() {
            assert_eq!(whole_frames(&whole[..cut]).expect("sound"), 0);
        }
        assert_eq!(whole_frames(&[&whole[..], &whole[..9]].concat()).expect("sound"), whole.len());
    }

    #[test]
    fn a_length_no_frame_has_ends_the_stream() {
        let bytes = ((FRAME_MAX + 1) as u32).to_be_bytes();
        assert!(whole_frames(&bytes).is_err());
        let (mut passed, back) = (Vec::new(), Mutex::new(Vec::new()));
        assert!(filter(&mut &bytes[..], &mut passed, admit, &back).is_err());
    }
}
