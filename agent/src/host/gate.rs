//! The policy at work: judges what a guest sends, answers what it refuses, writes it down, and takes up the rules anew when their file changes.

use super::names::{Names, told_by};
use super::policy::{Destination, Policy, TCP, UDP, Verdict};
use super::refusal;
use super::team::{Deliver, Membership, Wire};
use crate::sys::{check, own};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io::{self, Error, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

/// Lines of one run: a guest must not fill the host's disk.
const LINES_MAX: usize = 10_000;
/// Destinations that are remembered, so that each is written down once.
const TOLD_MAX: usize = 1024;

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
    names: Mutex<Names>,
    told: Mutex<Told>,
    /// To the peers of a team, from when the rules first name one.
    wire: RwLock<Option<Wire>>,
    deliver: Arc<Deliver>,
}

impl Gate {
    /// Reads the rules, and goes on reading them when they change. `deliver` gives the guest what comes from its team.
    pub fn open(path: &Path, deliver: Arc<Deliver>) -> io::Result<Arc<Gate>> {
        // Watched first, so that no change is missed.
        let changes = watch(path)?;
        let policy = read(path)?;
        let wire = RwLock::new(Wire::open(&policy.team, deliver.clone())?);
        let gate = Arc::new(Gate {
            path: path.to_path_buf(),
            policy: RwLock::new(policy),
            wire,
            deliver,
            names: Mutex::default(),
            told: Mutex::default(),
        });
        let watched = gate.clone();
        thread::spawn(move || watched.follow(&changes));
        Ok(gate)
    }

    pub fn admit(&self, frame: &[u8]) -> Admission {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        match policy.judge(frame, &self.names) {
            Verdict::Pass => policy.team.answer(frame).map_or(Admission::Pass, Admission::Answer),
            Verdict::Team => {
                if let Some(wire) = &*self.wire.read().unwrap_or_else(PoisonError::into_inner) {
                    wire.send(&policy.team, frame);
                }
                Admission::Drop
            }
            Verdict::Drop => Admission::Drop,
            Verdict::Learn(to, named) => {
                self.tell(to, || passed(to, self.name_of(to).filter(|_| named).as_deref()));
                Admission::Pass
            }
            Verdict::Refuse(to, rule) => {
                self.tell(to, || refused(to, self.name_of(to).as_deref(), rule));
                refusal::answer(frame).map_or(Admission::Drop, Admission::Answer)
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
    fn tell(&self, to: Destination, line: impl FnOnce() -> String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.lines >= LINES_MAX || told.destinations.contains(&to) {
            return;
        }
        if told.destinations.len() >= TOLD_MAX {
            told.destinations.clear();
        }
        told.destinations.insert(to);
        told.lines += 1;
        // On a full disk a line is lost, not the network.
        let _ = writeln!(io::stderr(), "{}", line());
        if told.lines == LINES_MAX {
            let _ = writeln!(io::stderr(), "refused more, or let through, which is not written down");
        }
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

fn refused(to: Destination, name: Option<&str>, rule: &str) -> String {
    format!("refused {} by: {rule}", described(to, name))
}

fn passed(to: Destination, name: Option<&str>) -> String {
    format!("passed {}", described(to, name))
}

fn described(to: Destination, name: Option<&str>) -> String {
    let protocol = match to.protocol {
        TCP => "tcp".to_string(),
        UDP => "udp".to_string(),
        1 => "icmp".to_string(),
        other => format!("protocol {other}"),
    };
    let port = to.port.map_or(String::new(), |port| format!(":{port}"));
    let name = name.map_or(String::new(), |name| format!(" {name}"));
    format!("{protocol} {}{port}{name}", to.address)
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
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_refusal_is_one_line() {
        let to = Destination { address: Ipv4Addr::new(192, 168, 1, 1), protocol: TCP, port: Some(80) };
        assert_eq!(refused(to, None, "private"), "refused tcp 192.168.1.1:80 by: private");
        assert_eq!(refused(to, Some("a.lan"), "private"), "refused tcp 192.168.1.1:80 a.lan by: private");
        assert_eq!(passed(to, Some("a.lan")), "passed tcp 192.168.1.1:80 a.lan");
        let other = Destination { protocol: 47, port: None, ..to };
        assert_eq!(refused(other, None, "never"), "refused protocol 47 192.168.1.1 by: never");
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
        let _gate = Gate::open(&path, Arc::new(deliver)).expect("a gate");
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
        let gate = Gate::open(&path, Arc::new(|_: &[u8]| ())).expect("a gate");
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
