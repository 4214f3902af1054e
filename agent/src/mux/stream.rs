//! One stream: its credit, what waits for its consumer, and the descriptors it joins to the connection.

use crate::failure::Failure;
use crate::mux::credit::{ReceiveWindow, SendCredit, WINDOW, WINDOW_MIN};
use crate::mux::datagram::Datagrams;
use crate::ops::worker::Shared;
use crate::sys;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// What a descriptor is, where pipes, sockets and terminals differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Pipe,
    Socket,
    Terminal,
    /// A connected UDP socket: each datagram goes behind its length.
    Datagrams,
}

/// Where DATA to the host comes from.
pub struct Source {
    pub fd: OwnedFd,
    pub medium: Medium,
    /// The kernel may have bytes for us; false after EAGAIN, until the next edge.
    pub ready: bool,
    /// The kernel has told of the end, or of an error: what is left is read to it.
    pub ending: bool,
    /// In the queue of sources that wait for their turn.
    pub queued: bool,
    /// Bytes still to deliver, once the process is gone: what others write after its end is not its output.
    pub left: Option<usize>,
}

impl Source {
    pub fn new(fd: OwnedFd, medium: Medium) -> Source {
        Source { fd, medium, ready: false, ending: false, queued: false, left: None }
    }
}

/// Where DATA from the host goes.
pub struct Sink {
    pub fd: OwnedFd,
    pub medium: Medium,
    /// Registered with epoll, which happens at the first EAGAIN.
    pub watched: bool,
}

/// What runs behind a stream.
pub enum Work {
    Process {
        pid: i32,
        terminal: bool,
    },
    Connection {
        connecting: bool,
    },
    /// Waits for a connection that a program of the guest makes, and becomes one.
    Accepting,
    Worker(Arc<Shared>),
}

/// The last word of a stream.
#[derive(Clone, Debug)]
pub enum Outcome {
    Ok(Value),
    Exit(i32),
    Signal(i32),
    Failed(Failure),
}

impl Outcome {
    pub fn to_json(&self) -> Value {
        match self {
            Outcome::Ok(value) => json!({"ok": value}),
            Outcome::Exit(status) => json!({"exit": status}),
            Outcome::Signal(signal) => json!({"signal": signal}),
            Outcome::Failed(failure) => failure.to_json(),
        }
    }
}

impl From<Result<Value, Failure>> for Outcome {
    fn from(result: Result<Value, Failure>) -> Outcome {
        match result {
            Ok(value) => Outcome::Ok(value),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

pub struct Stream {
    /// Number on the wire; `None` once the connection that opened it is gone.
    pub wire: Option<u32>,
    pub send: SendCredit,
    pub receive: ReceiveWindow,
    pub sources: [Option<Source>; 2],
    pub sink: Option<Sink>,
    /// DATA that the sink has not taken; bounded by the receive window.
    inbox: VecDeque<Vec<u8>>,
    /// Bytes of `inbox[0]` that were taken.
    taken: usize,
    /// END was received.
    pub ended: bool,
    /// The host has closed the stream, or is gone: nothing more is delivered.
    pub aborted: bool,
    pub work: Work,
    /// Datagrams from the host of which only a part has come.
    datagrams: Datagrams,
    /// Why a connection takes nothing more; what its peer had sent by then is delivered before this is told.
    pub broken: Option<Failure>,
    pub outcome: Option<Outcome>,
}

impl Stream {
    pub fn new(wire: u32, work: Work) -> Stream {
        Stream {
            wire: Some(wire),
            send: SendCredit::new(WINDOW),
            receive: ReceiveWindow::new(WINDOW),
            sources: [None, None],
            sink: None,
            inbox: VecDeque::new(),
            taken: 0,
            ended: false,
            aborted: false,
            work,
            datagrams: Datagrams::default(),
            broken: None,
            outcome: None,
        }
    }

    /// Bytes that each side may send before the first grant; `None`: as many as usual.
    pub fn set_window(&mut self, window: Option<u32>) -> Result<(), Failure> {
        let window = window.unwrap_or(WINDOW);
        if !(WINDOW_MIN..=WINDOW).contains(&window) {
            return Err(Failure::new("EINVAL", format!("a window of {window} bytes")));
        }
        self.send = SendCredit::new(window);
        self.receive = ReceiveWindow::new(window);
        Ok(())
    }

    /// DATA from the host. Returns the bytes that are done with: taken by the consumer, or of no use to anyone any more.
    pub fn deliver(&mut self, bytes: &[u8]) -> usize {
        if self.sink.is_none() {
            return bytes.len();
        }
        if !self.inbox.is_empty() || matches!(self.work, Work::Connection { connecting: true }) {
            self.inbox.push_back(bytes.to_vec());
            return 0;
        }
        let written = self.write_all(bytes);
        if self.sink.is_none() {
            return bytes.len();
        }
        if written < bytes.len() {
            self.inbox.push_back(bytes[written..].to_vec());
        }
        written
    }

    /// Moves waiting bytes into the sink; returns the bytes done with. Closes the sink when END has been reached.
    pub fn drain_inbox(&mut self) -> usize {
        let mut done = 0;
        while let Some(mut chunk) = self.inbox.pop_front() {
            let written = self.write_all(&chunk[self.taken..]);
            if self.sink.is_none() {
                // The consumer is gone: what waits is as good as taken.
                done += chunk.len() - self.taken + self.inbox.iter().map(Vec::len).sum::<usize>();
                self.inbox.clear();
                self.taken = 0;
                return done;
            }
            done += written;
            self.taken += written;
            if self.taken < chunk.len() {
                chunk.shrink_to_fit();
                self.inbox.push_front(chunk);
                return done;
            }
            self.taken = 0;
        }
        if self.ended {
            self.close_sink();
        }
        done
    }

    /// Bytes, or the end of an attempt to connect, wait for the sink.
    pub fn has_waiting(&self) -> bool {
        !self.inbox.is_empty() || matches!(self.work, Work::Connection { connecting: true })
    }

    /// END from the host.
    pub fn end(&mut self) {
        self.ended = true;
        if self.inbox.is_empty() && !matches!(self.work, Work::Connection { connecting: true }) {
            self.close_sink();
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let Some(sink) = &self.sink else { return 0 };
        if sink.medium == Medium::Datagrams {
            // What the socket does not take is lost, as it is on any wire.
            self.datagrams.take(bytes, |datagram| drop(sys::write(sink.fd.as_fd(), datagram)));
            return bytes.len();
        }
        let mut written = 0;
        while written < bytes.len() {
            match sys::write(sink.fd.as_fd(), &bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if sys::would_block(&error) => break,
                Err(error) => {
                    self.sink_failed(&error);
                    break;
                }
            }
        }
        written
    }

    /// A process or worker may close its input whenever it likes; a connection that refuses bytes has failed, and still has what its peer
    /// sent before that.
    fn sink_failed(&mut self, error: &io::Error) {
        self.sink = None;
        if matches!(self.work, Work::Connection { .. }) {
            self.broken = Some(Failure::io("connection", error));
        }
    }

    fn close_sink(&mut self) {
        // A terminal has no end of input: programs see one when its EOF character (^D) is typed. It stays open to the end of its
        // program, which would be killed by SIGHUP otherwise, even while it exits.
        if let Some(sink) = self.sink.as_ref().filter(|sink| sink.medium == Medium::Terminal) {
            let _ = sys::write(sink.fd.as_fd(), &[4]);
            return;
        }
        let Some(sink) = self.sink.take() else { return };
        if let Work::Worker(shared) = &self.work {
            shared.set_complete();
        }
        if sink.medium == Medium::Socket {
            // SAFETY: plain call on a live descriptor; the other end may be gone already.
            unsafe { libc::shutdown(sink.fd.as_raw_fd(), libc::SHUT_WR) };
        }
    }
}
