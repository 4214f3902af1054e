//! Which names an address was the answer to. Read from what the DNS forwarder tells the guest, on its way there: a rule by name counts for the addresses that the
//! host's resolver gave for it, and for nothing that a guest could say itself.

use super::address::{DNS, DNS_PORT};
use super::packet::{ETHERNET_HEADER, IPV4, IPV6, UDP, behind_header6, ethertype, header_length};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const UDP_HEADER: usize = 8;
const DNS_HEADER: usize = 12;
/// Answers of one message that are looked at, and addresses and names of each that are remembered: a guest can ask for as many as it likes.
const RECORDS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 4096;
const NAMES_MAX: usize = 16;
/// How long an address counts besides its own lifetime, anew with each packet that goes there: a connection may outlive the answer it began with.
const GRACE: Duration = Duration::from_secs(600);
const LIFETIME_MAX: u32 = 24 * 3600;
const NAME_MAX: usize = 255;
/// Types of records.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// `example.org`, or `*.example.org` for all below it; in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    name: String,
    below: bool,
}

impl Pattern {
    pub fn parse(text: &str) -> Option<Pattern> {
        let below = text.starts_with("*.");
        let name = text.strip_prefix("*.").unwrap_or(text);
        let sound = name.len() <= NAME_MAX && name.contains('.') && name.split('.').all(is_label);
        sound.then(|| Pattern { name: name.to_string(), below })
    }

    fn fits(&self, name: &str) -> bool {
        match name.strip_suffix(&self.name) {
            Some(rest) if self.below => rest.len() > 1 && rest.ends_with('.'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() < 64 && label.bytes().all(is_letter)
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
}

struct Known {
    name: String,
    until: Instant,
}

#[derive(Default)]
pub struct Names {
    of: HashMap<IpAddr, Vec<Known>>,
}

impl Names {
    pub fn learn(&mut self, Answer { name, addresses }: &Answer, now: Instant) {
        for (address, lifetime) in addresses {
            self.remember(*address, name, now + GRACE + Duration::from_secs((*lifetime).min(LIFETIME_MAX).into()), now);
        }
    }

    fn remember(&mut self, address: IpAddr, name: &str, until: Instant, now: Instant) {
        if !self.of.contains_key(&address) && self.of.len() >= ADDRESSES_MAX {
            self.of.retain(|_, known| known.iter().any(|each| each.until > now));
            let last = |known: &[Known]| known.iter().map(|each| each.until).max();
            if self.of.len() >= ADDRESSES_MAX
                && let Some(oldest) = self.of.iter().min_by_key(|(_, known)| last(known)).map(|(address, _)| *address)
            {
                self.of.remove(&oldest);
            }
        }
        let known = self.of.entry(address).or_default();
        if let Some(same) = known.iter_mut().find(|each| each.name == name) {
            same.until = same.until.max(until);
            return;
        }
        known.retain(|each| each.until > now);
        if known.len() >= NAMES_MAX {
            known.remove(0);
        }
        known.push(Known { name: name.to_string(), until });
    }

    /// Whether the address was an answer for such a name. It then counts for longer.
    pub fn fits(&mut self, address: IpAddr, pattern: &Pattern, now: Instant) -> bool {
        let fitting = self.of.get_mut(&address).into_iter().flatten();
        let mut found = false;
        for each in fitting.filter(|each| each.until > now && pattern.fits(&each.name)) {
            each.until = each.until.max(now + GRACE);
            found = true;
        }
        found
    }

    /// The last name that the address was an answer for.
    pub fn last(&self, address: IpAddr) -> Option<&str> {
        self.of.get(&address)?.last().map(|known| known.name.as_str())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    name: String,
    /// With their lifetimes, in seconds.
    addresses: Vec<(IpAddr, u32)>,
}

/// What a frame for the guest says, where it is an answer of the DNS forwarder.
pub fn told_by(frame: &[u8]) -> Option<Answer> {
    message(frame).and_then(answer)
}

/// What a UDP datagram from the DNS forwarder says.
fn message(frame: &[u8]) -> Option<&[u8]> {
    datagram(frame, Side::Source)
}

/// Which end of a packet.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The message of a whole UDP datagram that has the DNS forwarder on this side.
fn datagram(frame: &[u8], side: Side) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let second = usize::from(matches!(side, Side::Destination));
    let (who, body): (IpAddr, &[u8]) = match ethertype(frame) {
        IPV4 => {
            let header = header_length(packet)?;
            let whole = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff == 0;
            if !whole || packet[9] != UDP {
                return None;
            }
            (Ipv4Addr::from(*packet[12 + 4 * second..].first_chunk::<4>()?).into(), &packet[header..])
        }
        IPV6 => {
            let body = behind_header6(packet).filter(|_| packet[6] == UDP)?;
            (Ipv6Addr::from(*packet[8 + 16 * second..].first_chunk::<16>()?).into(), body)
        }
        _ => return None,
    };
    let number = body.get(2 * second..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
    (DNS.contains(&who) && number == Some(DNS_PORT)).then(|| body.get(UDP_HEADER..))?
}

/// A question of the guest's to the DNS forwarder: the message up to its end, the name in small letters, and whether an IPv4 address is asked for.
pub fn question_in(frame: &[u8]) -> Option<(&[u8], String, bool)> {
    let message = datagram(frame, Side::Destination)?;
    let header = message.first_chunk::<DNS_HEADER>()?;
    // No answer, of the common kind, with one question.
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut at = DNS_HEADER;
    let name = read_name(message, &mut at)?;
    let (kind, class) = (read_u16(message, &mut at)?, read_u16(message, &mut at)?);
    (class == INTERNET).then(|| (&message[..at], name, kind == A))
}

/// The name that was asked for, and the addresses that its own records or its aliases lead to. `None` for all but a good answer to one question for addresses.
fn answer(message: &[u8]) -> Option<Answer> {
    let header = message.first_chunk::<DNS_HEADER>()?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (flags, questions, answers) = (number(2), number(4), number(6));
    let (response, operation, code) = (flags >> 15, flags >> 11 & 0xf, flags & 0xf);
    if (response, operation, code, questions) != (1, 0, 0, 1) {
        return None;
    }
    let mut at = DNS_HEADER;
    let asked = read_name(message, &mut at)?;
    let wanted = read_u16(message, &mut at)?;
    if !matches!(wanted, A | AAAA) || read_u16(message, &mut at)? != INTERNET {
        return None;
    }
    let mut current = asked.clone();
    let mut addresses = Vec::new();
    for _ in 0..usize::from(answers).min(RECORDS_MAX) {
        let owner = read_name(message, &mut at)?;
        let (kind, class) = (read_u16(message, &mut at)?, read_u16(message, &mut at)?);
        let lifetime = u32::from(read_u16(message, &mut at)?) << 16 | u32::from(read_u16(message, &mut at)?);
        let length = usize::from(read_u16(message, &mut at)?);
        let data = message.get(at..at + length)?;
        if owner == current && class == INTERNET {
            match kind {
                A if wanted == A => addresses.push((<[u8; 4]>::try_from(data).ok()?.into(), lifetime)),
                AAAA if wanted == AAAA => addresses.push((<[u8; 16]>::try_from(data).ok()?.into(), lifetime)),
                CNAME => current = read_name(message, &mut at.clone())?,
                _ => {}
            }
        }
        at += length;
    }
    Some(Answer { name: asked, addresses })
}

fn read_u16(message: &[u8], at: &mut usize) -> Option<u16> {
    let bytes = message.get(*at..)?.first_chunk::<2>()?;
    *at += 2;
    Some(u16::from_be_bytes(*bytes))
}

/// In small letters. `None` for one that is broken, or has a letter that no name of a host has. Each pointer leads further back, so that it ends.
fn read_name(message: &[u8], at: &mut usize) -> Option<String> {
    let mut name = String::new();
    let mut place = *at;
    let mut limit = place;
    let mut jumped = false;
    loop {
        let length = usize::from(*message.get(place)?);
        match length >> 6 {
            0 if length == 0 => {
                if !jumped {
                    *at = place + 1;
                }
                return Some(name);
            }
            0 => {
                let label = message.get(place + 1..place + 1 + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in label {
                    let small = byte.to_ascii_lowercase();
                    name.push(char::from(is_letter(small).then_some(small)?));
                }
                if name.len() > NAME_MAX {
                    return None;
                }
                place += 1 + length;
            }
            3 => {
                let target = (length & 0x3f) << 8 | usize::from(*message.get(place + 1)?);
                if target >= limit {
                    return None;
                }
                if !jumped {
                    *at = place + 2;
                }
                (jumped, limit, place) = (true, target, target);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::packet::tests::frame6;
    use super::*;

    fn labels(name: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    }

    fn record(owner: &[u8], kind: u16, lifetime: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = owner.to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn response(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
        response_to(A, name, records)
    }

    fn response_to(kind: u16, name: &str, records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        bytes.extend(labels(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes.extend(records.concat());
        bytes
    }

    fn carried(from: [u8; 4], port: u16, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0]);
        frame.extend(from);
        frame.extend([10, 0, 2, 15]);
        frame.extend(port.to_be_bytes());
        frame.extend([0x80, 0, 0, 0, 0, 0]);
        frame.extend(message);
        frame
    }

    /// What the forwarder tells the guest of the address of a name.
    pub fn told(name: &str, address: [u8; 4]) -> Answer {
        let frame = carried([10, 0, 2, 3], 53, &response(name, &[record(&[0xc0, 12], A, 60, &address)]));
        told_by(&frame).expect("an answer")
    }

    /// The same of an IPv6 address, over IPv6.
    pub fn told6(name: &str, address: Ipv6Addr) -> Answer {
        let message = response_to(AAAA, name, &[record(&[0xc0, 12], AAAA, 60, &address.octets())]);
        told_by(&carried6("fd62:616e:6765:7200::3", &message)).expect("an answer")
    }

    fn carried6(from: &str, message: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 53, 0x80, 0, 0, 0, 0, 0];
        body.extend(message);
        let mut frame = frame6("fd62:616e:6765:7200::15", UDP, &body);
        frame[22..38].copy_from_slice(&from.parse::<Ipv6Addr>().expect("an address").octets());
        frame
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    const OCTETS: [u8; 4] = [93, 184, 216, 34];
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));

    #[test]
    fn a_pattern_is_a_name_or_all_below_it() {
        assert!(pattern("example.org").fits("example.org"));
        for other in ["www.example.org", "badexample.org", "example.org.evil.net", "org"] {
            assert!(!pattern("example.org").fits(other), "{other}");
        }
        assert!(pattern("*.example.org").fits("a.b.example.org"));
        for other in ["example.org", ".example.org", "badexample.org"] {
            assert!(!pattern("*.example.org").fits(other), "{other}");
        }
        for wrong in ["", "com", "*.com", "a..b", "EXAMPLE.org", "a b.c", "*.*.org", "exam*.org"] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_the_forwarder_is_remembered_for_its_time_and_longer_while_it_is_used() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.learn(&told("WWW.example.org", OCTETS), now);
        let within = pattern("www.example.org");
        assert!(names.fits(HERE, &within, now));
        assert!(!names.fits(HERE, &pattern("example.org"), now));
        assert_eq!(names.last(HERE), Some("www.example.org"));
        let later = now + Duration::from_secs(659);
        assert!(names.fits(HERE, &within, later));
        assert!(names.fits(HERE, &within, later + Duration::from_secs(599)), "it was in use");
        assert!(!names.fits(HERE, &within, later + Duration::from_secs(1200)));
    }

    #[test]
    fn aliases_lead_on_and_addresses_of_other_names_do_not_count() {
        let records = [
            record(&[0xc0, 12], CNAME, 60, &labels("cdn.example.net")),
            record(&labels("cdn.example.net"), A, 60, &[1, 1, 1, 1]),
            record(&labels("bank.example.com"), A, 60, &[2, 2, 2, 2]),
        ];
        let found = answer(&response("shop.example.org", &records)).expect("an answer");
        let expected = Answer { name: "shop.example.org".to_string(), addresses: vec![([1, 1, 1, 1].into(), 60)] };
        assert_eq!(found, expected);
    }

    #[test]
    fn ipv6_addresses_count_where_they_were_asked_for_by_either_protocol() {
        let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);
        let both = [
            record(&[0xc0, 12], CNAME, 60, &labels("cdn.example.net")),
            record(&labels("cdn.example.net"), AAAA, 60, &six.octets()),
            record(&labels("cdn.example.net"), A, 60, &[1, 1, 1, 1]),
            record(&labels("bank.example.com"), AAAA, 60, &[2; 16]),
        ];
        let of = |kind| answer(&response_to(kind, "shop.example.org", &both)).expect("an answer").addresses;
        assert_eq!(of(AAAA), [(six.into(), 60)]);
        assert_eq!(of(A), [([1, 1, 1, 1].into(), 60)]);
        let message = response_to(AAAA, "shop.example.org", &both);
        assert!(told_by(&carried6("fd62:616e:6765:7200::3", &message)).is_some());
        assert_eq!(told_by(&carried6("2001:db8::53", &message)), None);
        let (mut names, now) = (Names::default(), Instant::now());
        names.learn(&told6("shop.example.org", six), now);
        assert!(names.fits(six.into(), &pattern("*.example.org"), now));
        // An address of another length is none.
        assert_eq!(answer(&response_to(AAAA, "a.example.org", &[record(&[0xc0, 12], AAAA, 60, &[1; 4])])), None);
    }

    #[test]
    fn nothing_else_teaches_anything() {
        let good = response("example.org", &[record(&[0xc0, 12], A, 60, &OCTETS)]);
        assert!(answer(&good).is_some());
        for (at, value) in [(2, 0x01), (2, 0x89), (3, 0x83), (5, 2), (5, 0), (26, 28)] {
            let mut other = good.clone();
            other[at] = value;
            assert!(answer(&other).is_none_or(|found| found.addresses.is_empty()), "{at}: {value}");
        }
        assert!(told_by(&carried([10, 0, 2, 3], 53, &good)).is_some());
        assert_eq!(told_by(&carried([8, 8, 8, 8], 53, &good)), None);
        assert_eq!(told_by(&carried([10, 0, 2, 3], 54, &good)), None);
        let mut fragment = carried([10, 0, 2, 3], 53, &good);
        fragment[ETHERNET_HEADER + 6] = 0x20;
        assert_eq!(told_by(&fragment), None);
        let whole = carried([10, 0, 2, 3], 53, &good);
        for length in 0..whole.len() {
            assert_eq!(told_by(&whole[..length]), None);
        }
    }

    #[test]
    fn no_bytes_break_it_and_no_pointer_leads_in_a_circle() {
        let good = response(
            "shop.example.org",
            &[record(&[0xc0, 12], CNAME, 1, &[3, b'c', b'd', b'n', 0xc0, 17]), record(&[0xc0, 46], A, 1, &[1; 4])],
        );
        for length in 0..good.len() {
            answer(&good[..length]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                answer(&changed);
            }
        }
        let mut circle = vec![0; DNS_HEADER];
        circle.extend([0xc0, 12]);
        assert_eq!(read_name(&circle, &mut 12), None);
        let mut back_and_forth = vec![0xc0, 2, 0xc0, 0];
        assert_eq!(read_name(&back_and_forth, &mut 2), None);
        back_and_forth.clear();
        assert_eq!(read_name(&back_and_forth, &mut 0), None);
    }

    #[test]
    fn a_guest_that_asks_for_everything_fills_nothing() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..ADDRESSES_MAX as u32 + 10 {
            names.remember(
                Ipv4Addr::from_bits(number).into(),
                "example.org",
                now + Duration::from_secs(number.into()),
                now,
            );
        }
        for number in 0..100 {
            names.remember(
                Ipv4Addr::from_bits(ADDRESSES_MAX as u32).into(),
                &format!("n{number}.org"),
                now + GRACE,
                now,
            );
        }
        assert_eq!(names.of.len(), ADDRESSES_MAX);
        assert!(names.of.values().all(|known| known.len() <= NAMES_MAX));
    }
}
