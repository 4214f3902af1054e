//! The network of a team: VMs of one user that reach one another. Each has an address of 10.0.3.0/24 there, while its guest knows itself as 10.0.2.15, as all do: what
//! a guest sends to a peer's address gets its own in place of that, and goes to the peer's filter as a datagram. Nothing of this touches the host's network.
//!
//! ```text
//! guest A - filter A -- 10.0.3.2 to 10.0.2.15 (unix datagram) -- filter B - guest B
//! ```
//!
//! Names, `NAME.vm`, are answered here too: the host's resolver knows others.

use super::names;
use super::packet::{ETHERNET_HEADER, ICMP, IPV4_HEADER, TCP, UDP, header_length};
use super::refusal::{self, checksum};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Of who answers for the rest of the world, in the guest's eyes: locally administered.
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 3, 1];
/// Longest packet.
const PACKET_MAX: usize = 65_535;
/// Packets that wait for one peer; more are lost, as on any wire that is too narrow.
const WAITING_MAX: usize = 64;
/// How long a packet waits for a peer that does not take any.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of TCP, UDP and ICMP: where in their headers the checksum is.
const CHECKSUMS: [(u8, usize); 3] = [(TCP, 16), (UDP, 6), (ICMP, 2)];
const ICMP_HEADER: usize = 8;
const DNS_HEADER: usize = 12;
const NO_SUCH_NAME: u8 = 3;
/// Kinds of ICMP messages that tell of a packet, whose beginning they carry.
const ERRORS: [u8; 3] = [3, 11, 12];

/// As the file of rules has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Its own address there, its guest's MAC address, and where its filter takes datagrams.
    pub own: Option<(Ipv4Addr, [u8; 6], PathBuf)>,
    peers: HashMap<Ipv4Addr, PathBuf>,
    names: HashMap<String, Ipv4Addr>,
}

impl Membership {
    /// Takes up `team ADDRESS MAC SOCKET` or `peer NAME ADDRESS SOCKET`. `None` for a line that is neither.
    pub fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["team", address, mac, socket] => {
                self.own = Some((parse_address(address)?, parse_mac(mac)?, socket.into()));
            }
            ["peer", name, address, socket] => {
                self.peers.insert(parse_address(address)?, socket.into());
                self.names.insert(name.to_string(), parse_address(address)?);
            }
            _ => return None,
        }
        Some(())
    }

    pub fn holds(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.own.is_some() && is_there(address))
    }

    /// What the guest is told of `NAME.vm`, where it asks for that.
    pub fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.own.as_ref()?;
        let (question, name, wants_address) = names::question_in(frame)?;
        let known = self.names.get(name.strip_suffix(".vm")?).copied();
        // A name that is known and has nothing of the kind that is asked for is no error.
        let code = if known.is_some() { 0 } else { NO_SUCH_NAME };
        let address = known.filter(|_| wants_address);
        let mut message = question[..2].to_vec();
        message.extend([0x85, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
        message.extend(&question[DNS_HEADER..]);
        if let Some(address) = address {
            // Its name is that of the question; for nobody to keep.
            message.extend([0xc0, DNS_HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            message.extend(address.octets());
        }
        refusal::datagram_back(frame, &message)
    }
}

fn is_there(address: Ipv4Addr) -> bool {
    address.octets()[..3] == [10, 0, 3]
}

fn parse_address(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(|address| is_there(*address))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

/// How a frame gets to the guest.
pub type Deliver = dyn Fn(&[u8]) + Send + Sync;

/// The way to the peers.
pub struct Wire {
    own: Ipv4Addr,
    socket: Arc<UnixDatagram>,
    deliver: Arc<Deliver>,
    lines: Mutex<HashMap<PathBuf, SyncSender<Sending>>>,
}

struct Sending {
    packet: Vec<u8>,
    /// What the guest gets where nobody takes it.
    refusal: Option<Vec<u8>>,
}

impl Wire {
    /// Takes what peers send from here on.
    pub fn open(membership: &Membership, deliver: Arc<Deliver>) -> io::Result<Option<Wire>> {
        let Some((own, mac, path)) = membership.own.clone() else {
            return Ok(None);
        };
        let socket = Arc::new(bind(&path)?);
        let (incoming, to_guest) = (socket.clone(), deliver.clone());
        thread::spawn(move || receive(&incoming, mac, &*to_guest));
        Ok(Some(Wire { own, socket, deliver, lines: Mutex::default() }))
    }

    /// Takes a frame that the guest sends to a peer, and never waits for that one. Frames that could be anybody's are dropped.
    pub fn send(&self, membership: &Membership, frame: &[u8]) {
        let Some((to, packet)) = addressed(frame, self.own) else {
            return;
        };
        let refusal = refusal::answer(frame);
        let Some(path) = membership.peers.get(&to) else {
            if let Some(refusal) = refusal {
                (self.deliver)(&refusal);
            }
            return;
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(path.clone()).or_insert_with(|| self.line_to(path));
        // More than may wait is lost.
        let _ = line.try_send(Sending { packet, refusal });
    }

    fn line_to(&self, path: &Path) -> SyncSender<Sending> {
        let (line, waiting) = sync_channel(WAITING_MAX);
        let (socket, deliver, path) = (self.socket.clone(), self.deliver.clone(), path.to_path_buf());
        thread::spawn(move || transmit(&waiting, &socket, &path, &*deliver));
        line
    }
}

fn bind(path: &Path) -> io::Result<UnixDatagram> {
    // Of an earlier start of the same VM.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    // SAFETY: no memory is passed. Nothing else is made by this process.
    unsafe { libc::umask(0o177) };
    let socket = UnixDatagram::bind(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn transmit(waiting: &Receiver<Sending>, socket: &UnixDatagram, path: &Path, deliver: &Deliver) {
    while let Ok(Sending { packet, refusal }) = waiting.recv() {
        let gone = match socket.send_to(&packet, path) {
            Ok(_) => false,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
        };
        if gone && let Some(refusal) = refusal {
            deliver(&refusal);
        }
    }
}

fn receive(socket: &UnixDatagram, mac: [u8; 6], deliver: &Deliver) {
    let mut frame = vec![0; ETHERNET_HEADER + PACKET_MAX];
    frame[..6].copy_from_slice(&mac);
    frame[6..12].copy_from_slice(&GATEWAY_MAC);
    frame[12..ETHERNET_HEADER].copy_from_slice(&[8, 0]);
    loop {
        match socket.recv(&mut frame[ETHERNET_HEADER..]) {
            Ok(length) if is_of_a_peer(&frame[ETHERNET_HEADER..ETHERNET_HEADER + length]) => {
                deliver(&frame[..ETHERNET_HEADER + length]);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn is_of_a_peer(packet: &[u8]) -> bool {
    header_length(packet).is_some() && is_there(address_at(packet, 12)) && address_at(packet, 16) == GUEST
}

fn address_at(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

/// The peer's address, and the packet as its guest gets it. `None` for a source that is not the guest's, for a fragment, and for what has no checksum that
/// could be made anew.
fn addressed(frame: &[u8], own: Ipv4Addr) -> Option<(Ipv4Addr, Vec<u8>)> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let header = header_length(packet)?;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    if fragment || total < header || address_at(packet, 12) != GUEST {
        return None;
    }
    let mut packet = packet.get(..total)?.to_vec();
    let to = address_at(&packet, 16);
    packet[12..16].copy_from_slice(&own.octets());
    packet[16..20].copy_from_slice(&GUEST.octets());
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    seal(&mut packet, header, own)?;
    Some((to, packet))
}

/// Makes the checksum behind the header anew.
fn seal(packet: &mut [u8], header: usize, own: Ipv4Addr) -> Option<()> {
    let protocol = packet[9];
    let (_, at) = CHECKSUMS.into_iter().find(|(known, _)| *known == protocol)?;
    let (beginning, body) = packet.split_at_mut(header);
    body.get(at..at + 2)?;
    if protocol == ICMP && ERRORS.contains(&body[0]) && body.len() >= ICMP_HEADER + IPV4_HEADER {
        // The packet that it tells of, as its sender knows it.
        body[ICMP_HEADER + 12..ICMP_HEADER + 16].copy_from_slice(&GUEST.octets());
        body[ICMP_HEADER + 16..ICMP_HEADER + 20].copy_from_slice(&own.octets());
    }
    // UDP without one may stay so.
    if protocol == UDP && body[at..at + 2] == [0, 0] {
        return Some(());
    }
    body[at..at + 2].fill(0);
    let length = (body.len() as u16).to_be_bytes();
    let pseudo = [&beginning[12..20], &[0, protocol], &length].concat();
    let sum = if protocol == ICMP { checksum(&[body]) } else { checksum(&[&pseudo, body]) };
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn frame(protocol: u8, to: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + body.len() as u16).to_be_bytes());
        frame.extend([0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15]);
        frame.extend(to);
        frame.extend(body);
        frame
    }

    fn syn() -> Vec<u8> {
        let mut body = vec![0x80, 1, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 1, 0, 0xaa, 0xbb, 0, 0];
        body.extend([7; 5]);
        frame(TCP, [10, 0, 3, 9], &body)
    }

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

    #[test]
    fn a_packet_reaches_a_peer_as_from_its_senders_address_and_sound() {
        let mut padded = syn();
        padded.extend([0; 9]);
        let (to, packet) = addressed(&padded, OWN).expect("a packet");
        assert_eq!((to, packet.len()), (Ipv4Addr::new(10, 0, 3, 9), 45));
        assert_eq!((address_at(&packet, 12), address_at(&packet, 16)), (OWN, GUEST));
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [&packet[12..20], &[0, TCP, 0, 25]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
        assert!(is_of_a_peer(&packet));
    }

    #[test]
    fn an_error_tells_of_the_packet_as_its_sender_knows_it() {
        let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
        body.extend(&syn()[ETHERNET_HEADER..]);
        let (_, packet) = addressed(&frame(ICMP, [10, 0, 3, 9], &body), OWN).expect("a message");
        assert_eq!((address_at(&packet[28..], 12), address_at(&packet[28..], 16)), (GUEST, OWN));
        assert_eq!(checksum(&[&packet[20..]]), 0);
    }

    #[test]
    fn what_could_be_anybodys_goes_nowhere_and_no_bytes_break_it() {
        let good = syn();
        let mut spoofed = good.clone();
        spoofed[ETHERNET_HEADER + 15] = 16;
        let mut fragment = good.clone();
        fragment[ETHERNET_HEADER + 6] = 0x20;
        let mut other = good.clone();
        other[ETHERNET_HEADER + 9] = 47;
        for bad in [&spoofed, &fragment, &other] {
            assert_eq!(addressed(bad, OWN), None);
        }
        for length in 0..good.len() {
            assert_eq!(addressed(&good[..length], OWN), None);
            is_of_a_peer(&good[ETHERNET_HEADER..][..length.saturating_sub(ETHERNET_HEADER)]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x46, 0x4f, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                addressed(&changed, OWN);
            }
        }
    }

    #[test]
    fn two_of_a_team_reach_each_other_and_one_that_is_gone_is_told_at_once() {
        let folder = std::env::temp_dir().join(format!("banger-team-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let member = |own: &str| {
            let mut membership = Membership::default();
            let (a, b, c) = (folder.join("a"), folder.join("b"), folder.join("c"));
            for (name, address, path) in [("a", "10.0.3.2", &a), ("b", "10.0.3.9", &b), ("c", "10.0.3.4", &c)] {
                if name == own {
                    membership.add(&format!("team {address} 02:00:00:00:00:09 {}", path.display())).expect("a line");
                }
                membership.add(&format!("peer {name} {address} {}", path.display())).expect("a line");
            }
            membership
        };
        let opened = |membership: &Membership| {
            let (got, frames) = channel::<Vec<u8>>();
            let got = Mutex::new(got);
            let deliver = move |frame: &[u8]| drop(got.lock().expect("unpoisoned").send(frame.to_vec()));
            (Wire::open(membership, Arc::new(deliver)).expect("a socket").expect("a wire"), frames)
        };
        let (a, b) = (member("a"), member("b"));
        let ((wire_a, frames_a), (_wire_b, frames_b)) = (opened(&a), opened(&b));
        wire_a.send(&a, &syn());
        let arrived = frames_b.recv_timeout(Duration::from_secs(30)).expect("a frame");
        assert_eq!(&arrived[..6], &[2, 0, 0, 0, 0, 9]);
        assert_eq!(address_at(&arrived[ETHERNET_HEADER..], 12), OWN);
        // One that does not run, and one that is nobody.
        for to in [4, 77] {
            let mut other = syn();
            other[ETHERNET_HEADER + 19] = to;
            wire_a.send(&a, &other);
            let refused = frames_a.recv_timeout(Duration::from_secs(30)).expect("a reset");
            assert_eq!((refused[ETHERNET_HEADER + 15], refused[ETHERNET_HEADER + 33] & 4), (to, 4));
        }
        fs::remove_dir_all(&folder).expect("the folder");
    }

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        let mut body = vec![0x80, 1, 0, 53];
        body.extend((8 + message.len() as u16).to_be_bytes());
        body.extend([0, 0]);
        body.extend(message);
        frame(UDP, [10, 0, 2, 3], &body)
    }

    #[test]
    fn names_of_the_team_are_answered_and_all_others_are_left_to_the_resolver() {
        let mut team = Membership::default();
        assert_eq!(team.answer(&query("b.vm", 1)), None);
        team.add("team 10.0.3.2 02:00:00:00:00:09 /run/a b").expect("a line");
        team.add("peer b 10.0.3.9 /run/b").expect("a line");
        let told = team.answer(&query("B.vm", 1)).expect("an answer");
        assert_eq!(
            (&told[ETHERNET_HEADER + 12..ETHERNET_HEADER + 16], &told[told.len() - 4..]),
            (&[10, 0, 2, 3][..], &[10, 0, 3, 9][..])
        );
        let message = ETHERNET_HEADER + 28;
        assert_eq!((&told[message..message + 2], told[message + 3] & 15, told[message + 7]), (&[0x12, 0x34][..], 0, 1));
        let other_kind = team.answer(&query("b.vm", 28)).expect("an answer");
        assert_eq!((other_kind[message + 3] & 15, other_kind[message + 7]), (0, 0));
        let unknown = team.answer(&query("c.vm", 1)).expect("an answer");
        assert_eq!((unknown[message + 3] & 15, unknown[message + 7]), (NO_SUCH_NAME, 0));
        for left in ["example.org", "a.b.vm.example.org", "vm"] {
            assert_eq!(team.answer(&query(left, 1)), None, "{left}");
        }
        for wrong in ["peer b 10.0.4.9 /run/b", "team 10.0.3.2 02:00 /run/a", "peer b", "else"] {
            assert_eq!(team.add(wrong), None, "{wrong}");
        }
    }
}
