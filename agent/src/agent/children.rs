//! Processes that end, and those that must.

use super::{Agent, Deadline};
use crate::failure::Failure;
use crate::mux::stream::{Medium, Outcome, Work};
use crate::ops::dial;
use crate::sys;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Time between SIGHUP and SIGKILL for the processes of an aborted stream.
const HANGUP_GRACE: Duration = Duration::from_secs(5);
/// Bytes read at most from a terminal after its program's end: what the kernel buffers, with room to spare.
const TERMINAL_REST: usize = 256 * 1024;

impl Agent {
    /// Waits for every child that has ended: our programs and, as process 1, everybody's orphans.
    pub(super) fn reap(&mut self) {
        let mut scratch = [0; size_of::<libc::signalfd_siginfo>() * 8];
        while sys::read(self.children.as_fd(), &mut scratch).is_ok_and(|count| count == scratch.len()) {}
        loop {
            let mut status = 0;
            // SAFETY: the status is written to a live int.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                self.all_children_gone = pid < 0;
                return;
            }
            if let Some(key) = self.by_pid.remove(&pid) {
                self.process_ended(key, status);
            }
        }
    }

    fn process_ended(&mut self, key: u64, status: i32) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        // What ran before the guest was copied had its turn there.
        if stream.wire.is_some() {
            self.turn.command_ended();
        }
        stream.outcome = Some(if libc::WIFSIGNALED(status) {
            Outcome::Signal(libc::WTERMSIG(status))
        } else {
            Outcome::Exit(libc::WEXITSTATUS(status))
        });
        stream.sink = None;
        for slot in 0..stream.sources.len() {
            let Some(stream) = self.streams.get_mut(&key) else {
                return;
            };
            let Some(source) = &mut stream.sources[slot] else {
                continue;
            };
            // Only what is there now: a background child may hold the other end open for ever.
            let rest = match source.medium {
                Medium::Terminal => TERMINAL_REST,
                _ => sys::readable_bytes(source.fd.as_fd()),
            };
            if rest == 0 {
                stream.sources[slot] = None;
                continue;
            }
            source.left = Some(rest);
            source.ready = true;
            self.enqueue(key, slot);
        }
        self.finish_if_done(key);
    }

    /// Ends a stream's work. CLOSE follows when it has ended.
    pub(super) fn abort(&mut self, key: u64) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut stream.aborted, true) {
            return;
        }
        stream.sink = None;
        match &stream.work {
            Work::Process { pid, .. } => {
                if stream.outcome.is_none() {
                    for signal in [libc::SIGHUP, libc::SIGCONT] {
                        // A group that is gone needs no signal.
                        let _ = sys::kill(-pid, signal);
                    }
                    self.deadlines.push(Deadline { at: Instant::now() + HANGUP_GRACE, key });
                }
                stream.sources = [None, None];
            }
            Work::Connection { .. } => {
                if let Some(source) = stream.sources.iter().flatten().find(|source| source.medium == Medium::Socket) {
                    dial::reset_at_close(source.fd.as_fd());
                }
                stream.sources = [None, None];
                stream.outcome = Some(Outcome::Failed(Failure::new("ECANCELED", "the host closed the connection")));
            }
            Work::Accepting => {
                stream.outcome = Some(Outcome::Failed(Failure::new("ECANCELED", "the host waits no longer")));
            }
            Work::Worker(shared) => {
                shared.cancel();
                return self.discard(key, 0);
            }
        }
        self.finish_if_done(key);
    }

    pub(super) fn pass_deadlines(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = Instant::now();
        for deadline in self.deadlines.extract_if(.., |deadline| deadline.at <= now) {
            let Some(stream) = self.streams.get(&deadline.key) else { continue };
            if let (Work::Process { pid, .. }, None) = (&stream.work, &stream.outcome) {
                // A group that is gone needs no signal.
                let _ = sys::kill(-pid, libc::SIGKILL);
            }
        }
    }
}
