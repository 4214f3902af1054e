//! Which process of a guest began what is refused. The daemon knows its agent, and is asked when something is refused for the first time: the guest gets its answer when
//! that has been found out, or after `PATIENCE`, since a program that has been refused may be gone.

use crate::ops::dial;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a refusal waits for the name at most.
pub const PATIENCE: Duration = Duration::from_millis(300);
/// Longest answer, in bytes.
const ANSWER_MAX: usize = 64;

/// Where the daemon is asked, and by which name the VM is known there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    vm: String,
    socket: PathBuf,
}

impl Whose {
    /// `whose VM SOCKET`
    pub fn parse(line: &str) -> Option<Whose> {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["whose", vm, socket] if !vm.is_empty() => Some(Whose { vm: vm.to_string(), socket: socket.into() }),
            _ => None,
        }
    }

    /// `NAME(PID)` of whoever has the socket with this port of its own, and is connected to, or not connected at all. `None` where that is not known in time: no daemon runs,
    /// the guest does not answer, the packet was written by hand.
    pub fn ask(&self, protocol: &str, from: u16, to: u16, until: Instant) -> Option<String> {
        // A daemon that stands still takes no more connections at some time: that is not waited for.
        let mut stream = UnixStream::from(dial::connect_unix(&self.socket).ok()?);
        stream.set_nonblocking(false).ok()?;
        let left = || Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        stream.set_write_timeout(Some(left()?)).ok()?;
        stream.write_all(format!("{} {protocol} {from} {to}\n", self.vm).as_bytes()).ok()?;
        let mut answer = [0; ANSWER_MAX];
        let mut filled = 0;
        while !answer[..filled].contains(&b'\n') {
            stream.set_read_timeout(Some(left()?)).ok()?;
            match stream.read(answer.get_mut(filled..).filter(|space| !space.is_empty())?) {
                Ok(count) if count > 0 => filled += count,
                _ => return None,
            }
        }
        parse_answer(&answer[..filled])
    }
}

/// The daemon answers with `NAME(PID)`, or an empty line. The name is a guest's.
fn parse_answer(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (name, pid) = text.strip_suffix(')')?.rsplit_once('(')?;
    let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    (sound && pid.parse::<u32>().is_ok()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[test]
    fn the_daemon_is_asked_for_the_name_of_a_process() {
        let path = std::env::temp_dir().join(format!("banger-whose-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a socket");
        let whose = Whose::parse(&format!("whose 0a0b {}", path.display())).expect("a line");
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            // The last one is never answered.
            for answer in ["curl(612)\n", "\n", "two lines(1)\n", "x(-1)\n", ""] {
                let (mut stream, _) = listener.accept().expect("a question");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("a line");
                stream.write_all(answer.as_bytes()).expect("an answer");
                asked.push((line, stream));
            }
            asked
        });
        let soon = || Instant::now() + Duration::from_secs(30);
        assert_eq!(whose.ask("tcp", 40000, 80, soon()).as_deref(), Some("curl(612)"));
        for _ in 0..3 {
            assert_eq!(whose.ask("udp", 1, 2, soon()), None);
        }
        assert_eq!(whose.ask("tcp", 1, 2, Instant::now() + Duration::from_millis(50)), None);
        let asked = server.join().expect("the server");
        assert_eq!((asked[0].0.as_str(), asked[1].0.as_str()), ("0a0b tcp 40000 80\n", "0a0b udp 1 2\n"));
        assert_eq!(whose.ask("tcp", 1, 2, soon()), None, "nobody listens any more");
        std::fs::remove_file(&path).expect("the socket");
        assert_eq!(whose.ask("tcp", 1, 2, soon()), None);
        assert_eq!(Whose::parse("whose 0a0b"), None);
    }

    #[test]
    fn an_answer_is_a_name_and_a_number() {
        assert_eq!(parse_answer(b"a(b)(7)\n").as_deref(), Some("a(b)(7)"));
        for wrong in ["", "\n", "curl\n", "(1)\n", "curl(1)", "a b(1)\n", "curl(x)\n", "c\u{1b}(1)\n"] {
            assert_eq!(parse_answer(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
