//! The policy at work: judges what a guest sends, answers what it refuses, writes it down, and takes up the rules anew when their file changes.

use super::address::Cidr;
use super::attached::Attached;
use super::names::{Names, told_by};
use super::packet::{Destination, ICMP, ICMPV6, TCP, UDP};
use super::policy::{Policy, Verdict};
use super::refusal;
use super::team::{Deliver, Membership, Wire};
use super::whose::{PATIENCE, Whose};
use crate::sys::{check, own};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io::{self, Error, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

/// Lines of one run: a guest must not fill the host's disk.
const LINES_MAX: usize = 10_000;
/// Destinations that are remembered, so that each is written down once.
const TOLD_MAX: usize = 1024;
/// Refusals that wait until it is known whose they are; more are told of without.
const ASKED_MAX: usize = 64;

pub enum Admission {
    Pass,
    Drop,
    /// Refused, with the frame that tells the guest.
    Answer(Vec<u8>),
}

#[derive(Default)]
struct Told {
    lines: usize,
    destinations: HashSet<Destination>,
}

pub struct Gate {
    path: PathBuf,
    policy: RwLock<Policy>,
    /// Networks that the host is on, besides those that the rules name.
    attached: RwLock<Vec<Cidr>>,
    names: Mutex<Names>,
    told: Mutex<Told>,
    /// To the peers of a team, from when the rules first name one.
    wire: RwLock<Option<Wire>>,
    deliver: Arc<Deliver>,
    asking: SyncSender<Question>,
}

/// Whose a refusal is, which is to be found out before the guest gets its answer.
struct Question {
    whose: Whose,
    to: Destination,
    ports: (u16, u16),
    line: Refused,
    answer: Option<Vec<u8>>,
    until: Instant,
}

/// A line about a refusal, but for whose it was.
struct Refused {
    to: String,
    rule: String,
}

impl Refused {
    fn line(&self, process: Option<&str>) -> String {
        let process = process.map_or(String::new(), |process| format!(" from {process}"));
        format!("refused {}{process} by: {}", self.to, self.rule)
    }
}

impl Gate {
    /// Reads the rules, and goes on reading them when they change. `deliver` gives the guest what comes from its team. `attached`: whom to ask about the host's networks.
    pub fn open(path: &Path, deliver: Arc<Deliver>, attached: Option<Attached>) -> io::Result<Arc<Gate>> {
        // Watched first, so that no change is missed.
        let changes = watch(path)?;
        let policy = read(path)?;
        let wire = RwLock::new(Wire::open(&policy.team, deliver.clone())?);
        let (asking, asked) = sync_channel(ASKED_MAX);
        let to_guest = deliver.clone();
        thread::spawn(move || answer_questions(&asked, &*to_guest));
        let gate = Arc::new(Gate {
            path: path.to_path_buf(),
            policy: RwLock::new(policy),
            wire,
            deliver,
            attached: RwLock::default(),
            names: Mutex::default(),
            told: Mutex::default(),
            asking,
        });
        if let Some(attached) = attached {
            let watched = gate.clone();
            thread::spawn(move || watched.stay_attached(attached));
        }
        let watched = gate.clone();
        thread::spawn(move || watched.follow(&changes));
        Ok(gate)
    }

    pub fn admit(&self, frame: &[u8]) -> Admission {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner);
        match policy.judge(frame, &attached, &self.names) {
            Verdict::Pass => policy.team.answer(frame).map_or(Admission::Pass, Admission::Answer),
            Verdict::Team => {
                if let Some(wire) = &*self.wire.read().unwrap_or_else(PoisonError::into_inner) {
                    wire.send(&policy.team, frame);
                }
                Admission::Drop
            }
            Verdict::Drop => Admission::Drop,
            Verdict::Learn(to, named) => {
                if self.is_to_be_told(to) {
                    say(&format!("passed {}", described(to, self.name_of(to).filter(|_| named).as_deref())));
                }
                Admission::Pass
            }
            Verdict::Refuse(to, from, rule) => {
                let answer = refusal::answer(frame);
                if !self.is_to_be_told(to) {
                    return answer.map_or(Admission::Drop, Admission::Answer);
                }
                let line = Refused { to: described(to, self.name_of(to).as_deref()), rule: rule.to_string() };
                match (&policy.whose, from.zip(to.port)) {
                    (Some(whose), Some(ports)) => self.ask(whose.clone(), to, ports, line, answer),
                    _ => {
                        say(&line.line(None));
                        answer.map_or(Admission::Drop, Admission::Answer)
                    }
                }
            }
        }
    }

    /// The answer follows when it is known whose it was, or at once where too many wait for that.
    fn ask(
        &self,
        whose: Whose,
        to: Destination,
        ports: (u16, u16),
        line: Refused,
        answer: Option<Vec<u8>>,
    ) -> Admission {
        let question = Question { whose, to, ports, line, answer, until: Instant::now() + PATIENCE };
        match self.asking.try_send(question) {
            Ok(()) => Admission::Drop,
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => {
                say(&question.line.line(None));
                question.answer.map_or(Admission::Drop, Admission::Answer)
            }
        }
    }

    /// Looks at a frame before the guest gets it.
    pub fn learn(&self, frame: &[u8]) {
        if let Some(answer) = told_by(frame) {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).learn(&answer, Instant::now());
        }
    }

    /// Each destination once.
    fn is_to_be_told(&self, to: Destination) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.lines > LINES_MAX || told.destinations.contains(&to) {
            return false;
        }
        if told.destinations.len() >= TOLD_MAX {
            told.destinations.clear();
        }
        told.destinations.insert(to);
        told.lines += 1;
        if told.lines > LINES_MAX {
            say("refused more, or let through, which is not written down");
        }
        told.lines <= LINES_MAX
    }

    fn name_of(&self, to: Destination) -> Option<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).last(to.address).map(str::to_string)
    }

    /// A team that cannot be joined is one whose members cannot be reached.
    fn join(&self, team: &Membership) {
        let mut wire = self.wire.write().unwrap_or_else(PoisonError::into_inner);
        if wire.is_none() {
            *wire = Wire::open(team, self.deliver.clone()).unwrap_or_else(|error| {
                let _ = writeln!(io::stderr(), "team not joined: {error}");
                None
            });
        }
    }

    /// Those that were there when the rules were written are in them.
    fn stay_attached(&self, mut attached: Attached) {
        while let Ok(networks) = attached.networks() {
            *self.attached.write().unwrap_or_else(PoisonError::into_inner) = networks;
            self.told.lock().unwrap_or_else(PoisonError::into_inner).destinations.clear();
            if attached.wait().is_err() {
                return;
            }
        }
    }

    fn follow(&self, changes: &OwnedFd) {
        let mut events = [0_u8; 4096];
        loop {
            // SAFETY: the pointer and length are those of a live array.
            let count = unsafe { libc::read(changes.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
            if count < 0 && Error::last_os_error().kind() == ErrorKind::Interrupted {
                continue;
            }
            if count <= 0 {
                return;
            }
            // Rules that cannot be read leave those that were there.
            if let Ok(policy) = read(&self.path) {
                self.join(&policy.team);
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
                self.told.lock().unwrap_or_else(PoisonError::into_inner).destinations.clear();
            }
        }
    }
}

/// On a full disk a line is lost, not the network.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// One after the other, each for as long as it may wait: so none waits longer because of the others.
fn answer_questions(asked: &Receiver<Question>, deliver: &Deliver) {
    while let Ok(Question { whose, to, ports: (from, port), line, answer, until }) = asked.recv() {
        let protocol = if to.protocol == TCP { "tcp" } else { "udp" };
        let process = Some(until).filter(|until| *until > Instant::now());
        let process = process.and_then(|until| whose.ask(protocol, from, port, until));
        say(&line.line(process.as_deref()));
        if let Some(answer) = answer {
            deliver(&answer);
        }
    }
}

fn described(to: Destination, name: Option<&str>) -> String {
    let protocol = match to.protocol {
        TCP => "tcp".to_string(),
        UDP => "udp".to_string(),
        ICMP | ICMPV6 => "icmp".to_string(),
        other => format!("protocol {other}"),
    };
    let address = match to.port {
        Some(port) => SocketAddr::new(to.address, port).to_string(),
        None => to.address.to_string(),
    };
    let name = name.map_or(String::new(), |name| format!(" {name}"));
    format!("{protocol} {address}{name}")
}

fn read(path: &Path) -> io::Result<Policy> {
    let text = fs::read_to_string(path)?;
    Policy::parse(&text).ok_or_else(|| Error::new(ErrorKind::InvalidData, "the network rules are not understood"))
}

/// Tells of files that are put into the folder of `path`.
fn watch(path: &Path) -> io::Result<OwnedFd> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    unsafe {
        let changes = own(libc::inotify_init1(libc::IN_CLOEXEC))?;
        check(libc::inotify_add_watch(changes.as_raw_fd(), folder.as_ptr(), libc::IN_MOVED_TO))?;
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::ETHERNET_HEADER;
    use super::*;

    fn refused(to: Destination, name: Option<&str>, process: Option<&str>) -> String {
        Refused { to: described(to, name), rule: "private".to_string() }.line(process)
    }

    #[test]
    fn a_refusal_is_one_line() {
        let to = Destination { address: [192, 168, 1, 1].into(), protocol: TCP, port: Some(80) };
        assert_eq!(refused(to, None, None), "refused tcp 192.168.1.1:80 by: private");
        assert_eq!(
            refused(to, Some("a.lan"), Some("curl(7)")),
            "refused tcp 192.168.1.1:80 a.lan from curl(7) by: private"
        );
        let six = Destination { address: "fd00::1".parse().expect("an address"), ..to };
        assert_eq!(refused(six, None, None), "refused tcp [fd00::1]:80 by: private");
        let ping = Destination { protocol: ICMPV6, port: None, ..six };
        assert_eq!(refused(ping, None, None), "refused icmp fd00::1 by: private");
        let other = Destination { protocol: 47, port: None, ..to };
        assert_eq!(refused(other, None, None), "refused protocol 47 192.168.1.1 by: private");
    }

    #[test]
    fn a_refusal_waits_for_whose_it_was_the_first_time_only() {
        let folder = std::env::temp_dir().join(format!("banger-gate-whose-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, socket) = (folder.join("rules"), folder.join("whose.sock"));
        fs::write(&path, format!("format 2\ndefault deny\nwhose 0a {}", socket.display())).expect("rules");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let (got, frames) = std::sync::mpsc::channel::<Vec<u8>>();
        let got = Mutex::new(got);
        let deliver = move |frame: &[u8]| drop(got.lock().expect("unpoisoned").send(frame.to_vec()));
        let gate = Gate::open(&path, Arc::new(deliver), None).expect("a gate");
        let frame = super::super::packet::tests::frame([8, 8, 8, 8], TCP, 443);
        assert!(matches!(gate.admit(&frame), Admission::Drop));
        let (mut stream, _) = listener.accept().expect("a question");
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(&stream), &mut line).expect("a line");
        assert_eq!(line, "0a tcp 32768 443\n");
        stream.write_all(b"curl(7)\n").expect("an answer");
        let reply = frames.recv_timeout(std::time::Duration::from_secs(30)).expect("a reset");
        assert_eq!(reply[ETHERNET_HEADER + 33] & 4, 4);
        assert!(matches!(gate.admit(&frame), Admission::Answer(_)));
        // With nobody to ask it does not wait.
        drop(listener);
        let other = super::super::packet::tests::frame([8, 8, 4, 4], TCP, 443);
        assert!(matches!(gate.admit(&other), Admission::Drop));
        assert!(frames.recv_timeout(std::time::Duration::from_secs(30)).is_ok());
        fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn a_team_is_joined_when_the_rules_come_to_name_one() {
        let folder = std::env::temp_dir().join(format!("banger-gate-team-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("rules");
        fs::write(&path, "default allow").expect("rules");
        let (got, frames) = std::sync::mpsc::channel::<Vec<u8>>();
        let got = Mutex::new(got);
        let deliver = move |frame: &[u8]| drop(got.lock().expect("unpoisoned").send(frame.to_vec()));
        let _gate = Gate::open(&path, Arc::new(deliver), None).expect("a gate");
        let socket = folder.join("team.sock");
        fs::write(folder.join("new"), format!("team 10.0.3.2 02:00:00:00:00:09 {}", socket.display())).expect("rules");
        fs::rename(folder.join("new"), &path).expect("in place");
        let peer = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 3, 9, 10, 0, 2, 15];
        packet.resize(40, 0);
        let patience = Instant::now();
        while peer.send_to(&packet, &socket).is_err() {
            assert!(patience.elapsed().as_secs() < 30);
            thread::yield_now();
        }
        let frame = frames.recv_timeout(std::time::Duration::from_secs(30)).expect("a frame");
        assert_eq!(&frame[14..], &packet);
        fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn rules_are_taken_up_when_their_file_is_replaced() {
        let folder = std::env::temp_dir().join(format!("banger-gate-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("rules");
        fs::write(&path, "default deny").expect("rules");
        let gate = Gate::open(&path, Arc::new(|_: &[u8]| ()), None).expect("a gate");
        let mut frame = vec![0; 12];
        frame.extend([
            8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 2, 15, 8, 8, 8, 8, 1, 0, 0, 53, 0, 8, 0, 0,
        ]);
        assert!(matches!(gate.admit(&frame), Admission::Answer(_)));
        for (text, passes) in [("default allow", true), ("nonsense", true), ("default deny", false)] {
            fs::write(folder.join("new"), text).expect("rules");
            fs::rename(folder.join("new"), &path).expect("in place");
            let patience = std::time::Instant::now();
            while matches!(gate.admit(&frame), Admission::Pass) != passes {
                assert!(patience.elapsed().as_secs() < 30, "{text}");
                thread::yield_now();
            }
        }
        fs::remove_dir_all(&folder).expect("the folder");
    }
}
