//! Where a guest's packets may go. Looked at per packet, by destination: nothing from outside begins a connection, so that all a guest sends belongs to
//! what it began itself.
//!
//! The first that decides counts: what no guest may reach, the DNS forwarder, the rules in their order, the host's own networks and private addresses, the
//! default.

use super::names::{Names, Pattern};
use super::team::Membership;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
/// Least length of an IPv4 header.
const IPV4_HEADER: usize = 20;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// Rules of one VM; more are a mistake.
const RULES_MAX: usize = 4096;

/// The network between a guest and passt, and where it answers DNS (`docs/vmm.md`).
const GUEST_NETWORK: Cidr = Cidr { address: u32::from_be_bytes([10, 0, 2, 0]), bits: 24 };
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
pub const DNS_PORT: u16 = 53;

/// Of the host alone, or behind no router: loopback, "this host", link-local with the metadata services of clouds.
const NEVER: [Cidr; 3] = [cidr([127, 0, 0, 0], 8), cidr([0, 0, 0, 0], 8), cidr([169, 254, 0, 0], 16)];
/// Networks that are somebody's own (RFC 1918, 6598, 2544, 6890).
const PRIVATE: [Cidr; 6] = [
    cidr([10, 0, 0, 0], 8),
    cidr([172, 16, 0, 0], 12),
    cidr([192, 168, 0, 0], 16),
    cidr([100, 64, 0, 0], 10),
    cidr([198, 18, 0, 0], 15),
    cidr([192, 0, 0, 0], 24),
];

const fn cidr(octets: [u8; 4], bits: u32) -> Cidr {
    Cidr { address: u32::from_be_bytes(octets), bits }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    address: u32,
    bits: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Cidr { address: address.to_bits(), bits })
    }

    fn holds(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
        (address.to_bits() ^ self.address) & mask == 0
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Network(Cidr),
    Name(Pattern),
}

impl Target {
    fn parse(text: &str) -> Option<Target> {
        if text.contains('/') { Cidr::parse(text).map(Target::Network) } else { Pattern::parse(text).map(Target::Name) }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    to: Target,
    /// Undefined: any.
    protocol: Option<u8>,
    /// First and last; undefined: any.
    ports: Option<(u16, u16)>,
    /// As it was written, for the log.
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    /// Networks that the host is on.
    local: Vec<Cidr>,
    allow_rest: bool,
    /// What passes is told.
    learn: bool,
    pub team: Membership,
}

/// Where a packet goes to, and what that takes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub address: Ipv4Addr,
    pub protocol: u8,
    /// Of TCP and UDP, where the packet tells.
    pub port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Pass,
    /// Passes, and is to be written down: by its name too, where a rule by name would count for it.
    Learn(Destination, bool),
    /// Is a peer's of its team.
    Team,
    /// Nothing that deserves an answer.
    Drop,
    Refuse(Destination, &'a str),
}

impl Policy {
    /// Lines of `allow|deny CIDR|NAME|*.NAME any|tcp|udp *|PORT|FIRST-LAST`, `local CIDR`, `default allow|deny`, `learn`, and those of a team. `None` when one is not understood.
    pub fn parse(text: &str) -> Option<Policy> {
        let mut policy = Policy {
            rules: Vec::new(),
            local: Vec::new(),
            allow_rest: false,
            learn: false,
            team: Membership::default(),
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["default", action] => policy.allow_rest = parse_action(action)?,
                ["learn"] => policy.learn = true,
                ["local", network] => policy.local.push(Cidr::parse(network)?),
                ["team" | "peer", ..] => policy.team.add(line)?,
                [action, target, protocol, ports] => policy.rules.push(Rule {
                    allow: parse_action(action)?,
                    to: Target::parse(target)?,
                    protocol: parse_protocol(protocol)?,
                    ports: parse_ports(ports)?,
                    text: line.to_string(),
                }),
                _ => return None,
            }
        }
        (policy.rules.len() <= RULES_MAX).then_some(policy)
    }

    /// What becomes of a frame that the guest sends.
    pub fn judge(&self, frame: &[u8], names: &Mutex<Names>) -> Verdict<'_> {
        let Some(packet) = frame.get(ETHERNET_HEADER..) else {
            return Verdict::Drop;
        };
        match u16::from_be_bytes([frame[ETHERTYPE], frame[ETHERTYPE + 1]]) {
            ARP => Verdict::Pass,
            // passt serves no IPv6 here, and a VLAN tag would hide what is behind it.
            IPV4 => match destination(packet) {
                Some(to) => self.decide(to, names),
                None => Verdict::Drop,
            },
            _ => Verdict::Drop,
        }
    }

    fn decide(&self, to: Destination, names: &Mutex<Names>) -> Verdict<'_> {
        let Destination { address, port, .. } = to;
        if address.octets()[0] >= 224 {
            return Verdict::Drop;
        }
        if NEVER.iter().any(|network| network.holds(address)) {
            return Verdict::Refuse(to, "never");
        }
        if address == DNS && port == Some(DNS_PORT) {
            return Verdict::Pass;
        }
        if GUEST_NETWORK.holds(address) {
            return Verdict::Refuse(to, "never");
        }
        let near = self.local.iter().chain(&PRIVATE).any(|network| network.holds(address));
        let reaches = |rule: &Rule| match &rule.to {
            Target::Network(network) => network.holds(address),
            // Whoever owns a name can let it lead anywhere: not to what is near.
            Target::Name(_) if rule.allow && near => false,
            Target::Name(pattern) => {
                names.lock().unwrap_or_else(PoisonError::into_inner).fits(address, pattern, Instant::now())
            }
        };
        let rule = self.rules.iter().find(|rule| rule.concerns(to) && reaches(rule));
        match rule {
            Some(Rule { allow: false, text, .. }) => Verdict::Refuse(to, text),
            _ if self.team.holds(address) => Verdict::Team,
            None if near => Verdict::Refuse(to, "private"),
            None if !self.allow_rest => Verdict::Refuse(to, "default deny"),
            _ if self.learn => Verdict::Learn(to, !near),
            _ => Verdict::Pass,
        }
    }
}

impl Rule {
    /// By protocol and port.
    fn concerns(&self, to: Destination) -> bool {
        let port = match (self.ports, to.port) {
            (None, _) => true,
            (Some((first, last)), Some(port)) => (first..=last).contains(&port),
            // A packet that does not tell is none of those that are allowed, and may be one of those that are denied, if it has a port at all.
            (Some(_), None) => !self.allow && has_ports(to.protocol),
        };
        port && self.protocol.is_none_or(|protocol| protocol == to.protocol)
    }
}

fn parse_action(word: &str) -> Option<bool> {
    match word {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => None,
    }
}

fn parse_protocol(word: &str) -> Option<Option<u8>> {
    match word {
        "any" => Some(None),
        "tcp" => Some(Some(TCP)),
        "udp" => Some(Some(UDP)),
        _ => None,
    }
}

fn parse_ports(word: &str) -> Option<Option<(u16, u16)>> {
    if word == "*" {
        return Some(None);
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(Some((first.parse().ok()?, last.parse().ok()?)))
}

/// Length of an IPv4 header, where the packet holds a whole one.
pub fn header_length(packet: &[u8]) -> Option<usize> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let sound = packet[0] >> 4 == 4 && length >= IPV4_HEADER && packet.len() >= length;
    sound.then_some(length)
}

fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

fn destination(packet: &[u8]) -> Option<Destination> {
    let header = header_length(packet)?;
    let address = Ipv4Addr::from(*packet[16..].first_chunk::<4>()?);
    let protocol = packet[9];
    // A later fragment has no ports, and an earlier one's cannot be relied on.
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    let has_port = !fragment && has_ports(protocol);
    let port = packet.get(header + 2..header + 4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    Some(Destination { address, protocol, port: port.filter(|_| has_port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn frame(to: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4.to_be_bytes());
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15];
        packet.extend(to);
        packet.extend([0x80, 0]);
        packet.extend(port.to_be_bytes());
        packet.resize(40, 0);
        frame.extend(packet);
        frame
    }

    fn reason(policy: &Policy, to: [u8; 4], protocol: u8, port: u16) -> String {
        match policy.judge(&frame(to, protocol, port), &Mutex::default()) {
            Verdict::Pass => "pass".to_string(),
            Verdict::Learn(_, named) => format!("learn {named}"),
            Verdict::Team => "team".to_string(),
            Verdict::Drop => "drop".to_string(),
            Verdict::Refuse(_, rule) => rule.to_string(),
        }
    }

    fn policy(text: &str) -> Policy {
        Policy::parse(text).expect("a policy")
    }

    #[test]
    fn the_default_reaches_the_world_and_nothing_near() {
        let open = policy("local 192.0.2.0/24\ndefault allow");
        assert_eq!(reason(&open, [93, 184, 216, 34], TCP, 443), "pass");
        assert_eq!(reason(&open, [10, 0, 2, 3], UDP, 53), "pass");
        assert_eq!(reason(&open, [10, 0, 2, 3], TCP, 80), "never");
        for never in [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0], [169, 254, 169, 254], [10, 0, 2, 2]] {
            assert_eq!(reason(&open, never, TCP, 80), "never", "{never:?}");
        }
        for near in [[10, 1, 2, 3], [172, 31, 0, 1], [192, 168, 1, 1], [100, 64, 0, 1], [198, 19, 0, 1], [192, 0, 2, 9]]
        {
            assert_eq!(reason(&open, near, TCP, 80), "private", "{near:?}");
        }
        for group in [[224, 0, 0, 251], [255, 255, 255, 255]] {
            assert_eq!(reason(&open, group, UDP, 5353), "drop");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_but_never_about_what_is_never_reached() {
        let rules = policy(
            "deny 192.168.1.7/32 tcp 22\nallow 192.168.1.0/24 tcp 22-80\nallow 0.0.0.0/0 udp 123\nallow 127.0.0.0/8 any *\ndefault deny",
        );
        assert_eq!(reason(&rules, [192, 168, 1, 7], TCP, 22), "deny 192.168.1.7/32 tcp 22");
        assert_eq!(reason(&rules, [192, 168, 1, 8], TCP, 22), "pass");
        assert_eq!(reason(&rules, [192, 168, 1, 8], TCP, 81), "private");
        assert_eq!(reason(&rules, [192, 168, 1, 8], UDP, 22), "private");
        assert_eq!(reason(&rules, [8, 8, 8, 8], UDP, 123), "pass");
        assert_eq!(reason(&rules, [8, 8, 8, 8], TCP, 443), "default deny");
        assert_eq!(reason(&rules, [127, 0, 0, 1], TCP, 80), "never");
    }

    #[test]
    fn a_rule_by_name_counts_for_what_the_name_was_answered_with_and_never_for_what_is_near() {
        let rules =
            policy("deny ads.example.org any *\nallow *.example.org tcp 443\nlocal 203.0.113.0/24\ndefault deny");
        let names: Mutex<Names> = Mutex::default();
        let verdict = |to: [u8; 4], port: u16| match rules.judge(&frame(to, TCP, port), &names) {
            Verdict::Refuse(_, rule) => rule.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(verdict([9, 9, 9, 9], 443), "default deny");
        for (name, address) in [
            ("www.example.org", [9, 9, 9, 9]),
            ("ads.example.org", [9, 9, 9, 8]),
            ("lan.example.org", [192, 168, 1, 1]),
            ("own.example.org", [203, 0, 113, 7]),
            ("loop.example.org", [127, 0, 0, 1]),
            ("example.org", [9, 9, 9, 7]),
        ] {
            names.lock().expect("unpoisoned").learn(&super::super::names::tests::told(name, address), Instant::now());
        }
        assert_eq!(verdict([9, 9, 9, 9], 443), "Pass");
        assert_eq!(verdict([9, 9, 9, 9], 80), "default deny");
        assert_eq!(verdict([9, 9, 9, 8], 443), "deny ads.example.org any *");
        assert_eq!(verdict([9, 9, 9, 7], 443), "default deny");
        assert_eq!(verdict([192, 168, 1, 1], 443), "private");
        assert_eq!(verdict([203, 0, 113, 7], 443), "private");
        assert_eq!(verdict([127, 0, 0, 1], 443), "never");
    }

    #[test]
    fn a_peer_is_reached_in_a_team_only_unless_a_rule_denies_it() {
        let lines = "deny 10.0.3.8/32 any *\nallow 10.0.0.0/8 any *\ndefault deny";
        assert_eq!(reason(&policy(lines), [10, 0, 3, 9], TCP, 80), "pass");
        let member = policy(&format!("{lines}\nteam 10.0.3.2 02:00:00:00:00:01 /run/a socket\npeer b 10.0.3.9 /run/b"));
        assert_eq!(reason(&member, [10, 0, 3, 9], TCP, 80), "team");
        assert_eq!(reason(&member, [10, 0, 3, 8], TCP, 80), "deny 10.0.3.8/32 any *");
        assert_eq!(reason(&member, [10, 0, 4, 9], TCP, 80), "pass");
    }

    #[test]
    fn what_passes_is_told_where_it_is_asked_for() {
        let learning = policy("allow 192.168.1.5/32 tcp 80\nallow 8.8.8.8/32 any *\ndefault allow\nlearn");
        assert_eq!(reason(&learning, [9, 9, 9, 9], TCP, 443), "learn true");
        assert_eq!(reason(&learning, [8, 8, 8, 8], TCP, 443), "learn true");
        assert_eq!(reason(&learning, [192, 168, 1, 5], TCP, 80), "learn false");
        assert_eq!(reason(&learning, [192, 168, 1, 5], TCP, 81), "private");
        assert_eq!(reason(&learning, [10, 0, 2, 3], UDP, 53), "pass");
    }

    #[test]
    fn a_fragment_is_nothing_that_is_allowed_by_its_port() {
        let rules = policy("deny 8.8.8.8/32 tcp 25\nallow 9.9.9.9/32 tcp 443\ndefault deny");
        let mut first = frame([9, 9, 9, 9], TCP, 443);
        first[ETHERNET_HEADER + 6] = 0x20;
        assert!(matches!(rules.judge(&first, &Mutex::default()), Verdict::Refuse(_, "default deny")));
        let mut later = frame([8, 8, 8, 8], TCP, 80);
        later[ETHERNET_HEADER + 7] = 1;
        assert!(matches!(rules.judge(&later, &Mutex::default()), Verdict::Refuse(_, "deny 8.8.8.8/32 tcp 25")));
        // What has no ports is not concerned.
        let mail = policy("deny 0.0.0.0/0 any 25\nallow 9.9.9.9/32 any 1-65535\ndefault allow");
        assert_eq!(reason(&mail, [8, 8, 8, 8], 1, 0), "pass");
        assert_eq!(reason(&mail, [8, 8, 8, 8], UDP, 25), "deny 0.0.0.0/0 any 25");
    }

    #[test]
    fn what_hides_its_destination_is_dropped() {
        let open = policy("default allow");
        for ethertype in [0x86dd_u16, 0x8100, 0x88a8, 0x1234] {
            let mut hidden = frame([1, 1, 1, 1], TCP, 80);
            hidden[ETHERTYPE..ETHERNET_HEADER].copy_from_slice(&ethertype.to_be_bytes());
            assert_eq!(open.judge(&hidden, &Mutex::default()), Verdict::Drop);
        }
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f)] {
            let mut broken = frame([1, 1, 1, 1], TCP, 80);
            broken[ETHERNET_HEADER + at] = value;
            assert_eq!(open.judge(&broken, &Mutex::default()), Verdict::Drop, "{value:#x}");
        }
        let whole = frame([1, 1, 1, 1], TCP, 80);
        for length in 0..ETHERNET_HEADER + IPV4_HEADER {
            assert_eq!(open.judge(&whole[..length], &Mutex::default()), Verdict::Drop);
        }
    }

    #[test]
    fn a_rule_that_is_not_understood_makes_no_policy() {
        for text in [
            "allow",
            "permit 1.1.1.1/32 any *",
            "allow 1.1.1.1/ any *",
            "allow example any *",
            "allow 1.1.1.1/33 any *",
            "allow 1.1.1.1/32 sctp *",
            "allow 1.1.1.1/32 tcp 70000",
            "default",
            "local x",
            "",
        ] {
            assert_eq!(Policy::parse(text).is_some(), text.is_empty(), "{text:?}");
        }
        // Nothing said is nothing allowed.
        assert_eq!(reason(&policy(""), [8, 8, 8, 8], TCP, 443), "default deny");
    }
}
