//! Where a guest's packets may go. Looked at per packet, by destination: nothing from outside begins a connection, so that all a guest sends belongs to
//! what it began itself.
//!
//! The first that decides counts: what no guest may reach, the DNS forwarder, the rules in their order, the host's own networks and private addresses, the
//! default.

use super::address::{self, Cidr};
use super::names::{Names, Pattern};
use super::packet::{Destination, Sent, TCP, UDP, has_ports, read};
use super::team::Membership;
use super::whose::Whose;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Rules of one VM; more are a mistake.
const RULES_MAX: usize = 4096;
/// Of the file of rules: the daemon writes lines that this reader knows only where it finds this number in what it has written for it before.
const FORMAT: &str = "2";

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
    /// IPv6 goes further than this; else nobody beyond would hear it.
    six: bool,
    /// What passes is told.
    learn: bool,
    pub team: Membership,
    pub whose: Option<Whose>,
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
    /// And the port that it comes from.
    Refuse(Destination, Option<u16>, &'a str),
}

impl Policy {
    /// Lines of `format 2`, `allow|deny CIDR|NAME|*.NAME any|tcp|udp *|PORT|FIRST-LAST`, `local CIDR`, `default allow|deny`, `ipv6`, `learn`, and those of a team and of whom
    /// to ask about processes. `None` when one is not understood.
    pub fn parse(text: &str) -> Option<Policy> {
        let mut policy = Policy {
            rules: Vec::new(),
            local: Vec::new(),
            allow_rest: false,
            six: false,
            learn: false,
            team: Membership::default(),
            whose: None,
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["default", action] => policy.allow_rest = parse_action(action)?,
                ["format", FORMAT] => {}
                ["ipv6"] => policy.six = true,
                ["learn"] => policy.learn = true,
                ["local", network] => policy.local.push(Cidr::parse(network)?),
                ["team" | "peer", ..] => policy.team.add(line)?,
                ["whose", ..] => policy.whose = Some(Whose::parse(line)?),
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

    /// What becomes of a frame that the guest sends. `attached`: networks that the host is on, besides those in the rules.
    pub fn judge(&self, frame: &[u8], attached: &[Cidr], names: &Mutex<Names>) -> Verdict<'_> {
        match read(frame) {
            Sent::Question => Verdict::Pass,
            Sent::To(to, _) | Sent::Odd(to) if to.address.is_ipv6() && !self.six => Verdict::Drop,
            Sent::Odd(to) if address::is_group(to.address) => Verdict::Drop,
            Sent::Odd(to) => Verdict::Refuse(to, None, "never"),
            Sent::To(to, from) => self.decide(to, from, attached, names),
            Sent::Nothing => Verdict::Drop,
        }
    }

    fn decide(&self, to: Destination, from: Option<u16>, attached: &[Cidr], names: &Mutex<Names>) -> Verdict<'_> {
        let Destination { address, port, .. } = to;
        if address::is_group(address) {
            return Verdict::Drop;
        }
        // By datagrams only: over TCP passt would take the address for one of the host's network.
        if address::DNS.contains(&address) && (to.protocol, port) == (UDP, Some(address::DNS_PORT)) {
            return Verdict::Pass;
        }
        if address::is_never(address) {
            return Verdict::Refuse(to, from, "never");
        }
        let near = address::is_near(address, self.local.iter().chain(attached));
        let reaches = |rule: &Rule| match &rule.to {
            // What is denied is denied by any way that leads there.
            Target::Network(network) if rule.allow => network.holds(address),
            Target::Network(network) => network.may_hold(address),
            // Whoever owns a name can let it lead anywhere: not to what is near.
            Target::Name(_) if rule.allow && near => false,
            Target::Name(pattern) => {
                names.lock().unwrap_or_else(PoisonError::into_inner).fits(address, pattern, Instant::now())
            }
        };
        let rule = self.rules.iter().find(|rule| rule.concerns(to) && reaches(rule));
        match rule {
            Some(Rule { allow: false, text, .. }) => Verdict::Refuse(to, from, text),
            _ if self.team.holds(address) => Verdict::Team,
            None if near => Verdict::Refuse(to, from, "private"),
            None if !self.allow_rest => Verdict::Refuse(to, from, "default deny"),
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

#[cfg(test)]
mod tests {
    use super::super::names::tests::{told, told6};
    use super::super::packet::tests::{frame, frame6, segment};
    use super::super::packet::{ECHO6, ETHERNET_HEADER, ICMPV6};
    use super::*;

    fn reason(policy: &Policy, to: [u8; 4], protocol: u8, port: u16) -> String {
        said(policy.judge(&frame(to, protocol, port), &[], &Mutex::default()))
    }

    fn said(verdict: Verdict) -> String {
        match verdict {
            Verdict::Pass => "pass".to_string(),
            Verdict::Learn(_, named) => format!("learn {named}"),
            Verdict::Team => "team".to_string(),
            Verdict::Drop => "drop".to_string(),
            Verdict::Refuse(_, _, rule) => rule.to_string(),
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
        assert_eq!(reason(&open, [10, 0, 2, 3], TCP, 53), "never");
        assert_eq!(reason(&open, [10, 0, 2, 3], UDP, 80), "never");
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
    fn a_network_that_the_host_joins_is_near_from_then_on() {
        let rules = policy("allow www.example.org any *\ndefault allow");
        let names: Mutex<Names> = Mutex::default();
        names.lock().expect("unpoisoned").learn(&told("www.example.org", [203, 0, 113, 9]), Instant::now());
        let joined = [Cidr::parse("203.0.113.0/24").expect("a network")];
        let verdict = |attached: &[Cidr]| said(rules.judge(&frame([203, 0, 113, 9], TCP, 443), attached, &names));
        assert_eq!((verdict(&[]).as_str(), verdict(&joined).as_str()), ("pass", "private"));
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
        let verdict = |to: [u8; 4], port: u16| match rules.judge(&frame(to, TCP, port), &[], &names) {
            Verdict::Refuse(_, _, rule) => rule.to_string(),
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
            names.lock().expect("unpoisoned").learn(&told(name, address), Instant::now());
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
        assert!(matches!(rules.judge(&first, &[], &Mutex::default()), Verdict::Refuse(_, _, "default deny")));
        let mut later = frame([8, 8, 8, 8], TCP, 80);
        later[ETHERNET_HEADER + 7] = 1;
        assert!(matches!(rules.judge(&later, &[], &Mutex::default()), Verdict::Refuse(_, _, "deny 8.8.8.8/32 tcp 25")));
        // What has no ports is not concerned.
        let mail = policy("deny 0.0.0.0/0 any 25\nallow 9.9.9.9/32 any 1-65535\ndefault allow");
        assert_eq!(reason(&mail, [8, 8, 8, 8], 1, 0), "pass");
        assert_eq!(reason(&mail, [8, 8, 8, 8], UDP, 25), "deny 0.0.0.0/0 any 25");
    }

    #[test]
    fn ipv6_is_judged_as_ipv4_is_where_it_goes_anywhere() {
        let lines = "deny 2001:db8:6::/48 tcp 25\ndeny 198.51.100.0/24 any *\nallow fd12::5/128 tcp 5432\nallow www.example.org tcp 443\nlocal 2001:db8:7::/64";
        let judged = |policy: &Policy, to: &str, port: u16| {
            let names: Mutex<Names> = Mutex::default();
            for (name, address) in [("www.example.org", "2001:db8::80"), ("www.example.org", "fd12::80")] {
                let answer = told6(name, address.parse().expect("an address"));
                names.lock().expect("unpoisoned").learn(&answer, Instant::now());
            }
            said(policy.judge(&frame6(to, TCP, &segment(port)), &[], &names))
        };
        assert_eq!(judged(&policy(&format!("{lines}\ndefault allow")), "2001:db8::1", 443), "drop");
        let open = policy(&format!("{lines}\ndefault allow\nipv6"));
        for (to, port, expected) in [
            ("2001:db8::1", 443, "pass"),
            ("2001:db8:6::1", 25, "deny 2001:db8:6::/48 tcp 25"),
            ("2001:db8:6::1", 26, "pass"),
            ("2001:db8:7::1", 443, "private"),
            ("fd12::4", 5432, "private"),
            ("fd12::5", 5432, "pass"),
            ("fd12::5", 5433, "private"),
            ("::1", 80, "never"),
            ("::ffff:127.0.0.1", 80, "never"),
            ("64:ff9b::198.51.100.7", 80, "deny 198.51.100.0/24 any *"),
            ("64:ff9b::10.0.0.1", 80, "private"),
            ("fe80::1", 80, "never"),
            ("ff02::1", 80, "drop"),
            ("fd62:616e:6765:7200::3", 53, "never"),
        ] {
            assert_eq!(judged(&open, to, port), expected, "{to} {port}");
        }
        let strict = policy(&format!("{lines}\ndefault deny\nipv6"));
        assert_eq!(judged(&strict, "2001:db8::80", 443), "pass");
        assert_eq!(judged(&strict, "2001:db8::80", 80), "default deny");
        assert_eq!(judged(&strict, "2001:db8::81", 443), "default deny");
        assert_eq!(judged(&strict, "fd12::80", 443), "private", "a name leads to nothing near");
        let learning = policy("default allow\nipv6\nlearn");
        assert_eq!(judged(&learning, "2001:db8::80", 443), "learn true");
        let to = |policy: &Policy, protocol, body: &[u8]| {
            said(policy.judge(&frame6("2001:db8::1", protocol, body), &[], &Mutex::default()))
        };
        let question = frame6("fd62:616e:6765:7200::3", UDP, &segment(53));
        assert_eq!(said(strict.judge(&question, &[], &Mutex::default())), "pass");
        assert_eq!(to(&open, ICMPV6, &[ECHO6, 0, 0, 0]), "pass");
        assert_eq!(to(&strict, ICMPV6, &[ECHO6, 0, 0, 0]), "default deny");
        assert_eq!(to(&open, 44, &segment(443)), "never");
        assert_eq!(to(&policy("deny 0.0.0.0/0 any *\ndefault allow\nipv6"), UDP, &segment(53)), "deny 0.0.0.0/0 any *");
    }

    #[test]
    fn what_hides_its_destination_is_dropped() {
        let open = policy("default allow\nipv6");
        for ethertype in [0x86dd_u16, 0x8100, 0x88a8, 0x1234] {
            let mut hidden = frame([1, 1, 1, 1], TCP, 80);
            hidden[12..ETHERNET_HEADER].copy_from_slice(&ethertype.to_be_bytes());
            assert_eq!(open.judge(&hidden, &[], &Mutex::default()), Verdict::Drop);
        }
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f)] {
            let mut broken = frame([1, 1, 1, 1], TCP, 80);
            broken[ETHERNET_HEADER + at] = value;
            assert_eq!(open.judge(&broken, &[], &Mutex::default()), Verdict::Drop, "{value:#x}");
        }
        let whole = frame([1, 1, 1, 1], TCP, 80);
        for length in 0..ETHERNET_HEADER + 20 {
            assert_eq!(open.judge(&whole[..length], &[], &Mutex::default()), Verdict::Drop);
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
            "allow ::/129 any *",
            "default",
            "format 3",
            "whose",
            "local x",
            "",
        ] {
            assert_eq!(Policy::parse(text).is_some(), text.is_empty(), "{text:?}");
        }
        // Nothing said is nothing allowed.
        assert_eq!(reason(&policy(""), [8, 8, 8, 8], TCP, 443), "default deny");
    }
}
