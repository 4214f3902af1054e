//! The agent: one thread, one epoll loop, all state.

mod accepting;
mod children;
mod connection;
mod output;
mod requests;
mod shutdown;
mod start_init;

use crate::boot::Booted;
use crate::channel::{self, Channel};
use crate::frame::{Decoder, Kind};
use crate::identity::turn::Turn;
use crate::mux::outbox::Outbox;
use crate::mux::stream::{Outcome, Stream};
use crate::process::launch::Launcher;
use crate::sys::{self, Epoll};
use accepting::Listener;
use connection::Opening;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Keys of epoll events. A stream's are its own key times four plus one of the `SLOT_`s.
const KEY_CHANNEL: u64 = 0;
const KEY_CHILDREN: u64 = 1;
const KEY_LISTENER: u64 = 2;
const KEY_NOTIFY: u64 = 3;
const FIRST_STREAM: u64 = 1;
/// 0 and 1 are the stream's sources.
const SLOT_SINK: u64 = 2;
/// Of a port that is listened on: those have keys of their own.
const SLOT_LISTENER: u64 = 3;

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// Where the image's own init stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// Not configured yet.
    Waiting,
    /// The agent is process 1.
    None,
    /// Process 1 is this program.
    Started(String),
}

struct Deadline {
    at: Instant,
    key: u64,
}

pub struct Agent {
    epoll: Epoll,
    channel: Channel,
    /// The kernel may have bytes from the host.
    readable: bool,
    /// The connection may take bytes.
    writable: bool,
    /// What the connection is watched for, as of epoll's events.
    watched: i32,
    /// Nobody has the port open at the host's end: it would be told as ready for ever.
    hung_up: bool,
    decoder: Decoder,
    outbox: Outbox,
    /// Set by the first SYNC; nothing is sent or accepted before.
    epoch: Option<u16>,
    streams: BTreeMap<u64, Stream>,
    /// Streams of this epoch by their number on the wire.
    by_wire: BTreeMap<u32, u64>,
    next_key: u64,
    by_pid: BTreeMap<i32, u64>,
    /// Sources with bytes to send, in the order of their turns: (stream key, channel).
    queue: VecDeque<(u64, usize)>,
    /// Ports whose connections go to the host.
    listeners: BTreeMap<u64, Listener>,
    opening: Opening,
    deadlines: Vec<Deadline>,
    launcher: Launcher,
    children: OwnedFd,
    /// The last look found no child, running or dead.
    all_children_gone: bool,
    notify: Option<OwnedFd>,
    init: Init,
    stopping: Option<shutdown::Stopping>,
    /// The last `configure` failed.
    unconfigured: bool,
    turn: Turn,
    boot: Booted,
}

impl Agent {
    pub fn new(channel: Channel, boot: Booted) -> io::Result<Agent> {
        let mut agent = Agent {
            epoll: Epoll::new()?,
            channel,
            readable: true,
            writable: true,
            watched: 0,
            hung_up: false,
            decoder: Decoder::new(),
            outbox: Outbox::new(),
            epoch: None,
            streams: BTreeMap::new(),
            by_wire: BTreeMap::new(),
            next_key: FIRST_STREAM,
            by_pid: BTreeMap::new(),
            queue: VecDeque::new(),
            listeners: BTreeMap::new(),
            opening: Opening::default(),
            deadlines: Vec::new(),
            launcher: Launcher::new(),
            children: sys::child_signals()?,
            all_children_gone: false,
            notify: None,
            init: Init::Waiting,
            stopping: None,
            unconfigured: false,
            turn: Turn::default(),
            boot,
        };
        agent.watch_all()?;
        Ok(agent)
    }

    /// Registers everything that is not a stream.
    fn watch_all(&mut self) -> io::Result<()> {
        self.epoll.add(self.children.as_fd(), libc::EPOLLIN, KEY_CHILDREN)?;
        if let Channel::Vsock { listener, .. } = &self.channel {
            self.epoll.add(listener.as_fd(), libc::EPOLLIN, KEY_LISTENER)?;
        }
        if let Some(notify) = &self.notify {
            self.epoll.add(notify.as_fd(), libc::EPOLLIN, KEY_NOTIFY)?;
        }
        self.watch_connection()
    }

    fn watch_connection(&mut self) -> io::Result<()> {
        self.watched = self.wanted();
        match self.channel.fd() {
            Some(fd) => self.epoll.add_level(fd, self.watched, KEY_CHANNEL),
            None => Ok(()),
        }
    }

    /// What the connection is to be watched for. Level-triggered: each read and each write that would only find out that there is nothing more
    /// to do costs a system call, and the port tells of every write that the host has taken.
    fn wanted(&self) -> i32 {
        if self.hung_up {
            return libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
        }
        let input = if self.outbox.takes_answers() { libc::EPOLLIN } else { 0 };
        let output = if self.writable { 0 } else { libc::EPOLLOUT };
        input | output
    }

    fn watch_anew(&mut self) -> io::Result<()> {
        let wanted = self.wanted();
        if wanted != self.watched
            && let Some(fd) = self.channel.fd()
        {
            self.epoll.change(fd, wanted, KEY_CHANNEL)?;
            self.watched = wanted;
        }
        Ok(())
    }

    /// Serves the host. Returns when an inherited connection has ended; never for a port or vsock.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            self.watch_anew()?;
            let count = self.epoll.wait(&mut events, self.timeout_ms())?;
            let mut children = false;
            for event in &events[..count] {
                match event.u64 {
                    KEY_CHILDREN => children = true,
                    key => self.dispatch(key, event.events),
                }
            }
            if !self.receive() {
                return Ok(());
            }
            if children {
                self.reap();
            }
            self.pass_deadlines();
            self.pump();
            self.flush();
            self.pass_stopping();
            self.turn.pass();
        }
    }

    fn timeout_ms(&self) -> i32 {
        let output = self.writable && !self.queue.is_empty();
        let input = self.readable && self.outbox.takes_answers();
        if output || input {
            return 0;
        }
        let stop = self.stopping.as_ref().map(|stopping| stopping.deadline);
        match self.deadlines.iter().map(|deadline| deadline.at).chain(stop).chain(self.turn.due()).min() {
            // Rounded up, or the loop would wake just before its time.
            Some(at) => at.saturating_duration_since(Instant::now()).as_millis().min(60_000) as i32 + 1,
            None => -1,
        }
    }

    fn dispatch(&mut self, key: u64, events: u32) {
        match key {
            KEY_CHANNEL => {
                self.hung_up = matches!(self.channel, Channel::Port(_)) && events & libc::EPOLLHUP as u32 != 0;
                self.readable |= events & !(libc::EPOLLOUT as u32) != 0;
                self.writable |= events & libc::EPOLLOUT as u32 != 0;
            }
            KEY_LISTENER => self.accept(),
            KEY_NOTIFY => self.read_notifications(),
            _ => match key & 3 {
                SLOT_SINK => self.sink_ready(key >> 2),
                SLOT_LISTENER => self.accept_waiting(key >> 2),
                slot => self.source_ready(key >> 2, slot as usize, events),
            },
        }
    }

    fn accept(&mut self) {
        while let Channel::Vsock { listener, connection } = &mut self.channel {
            match channel::accept(listener.as_fd()) {
                Ok(fd) => *connection = Some(fd),
                Err(_) => return,
            }
            self.forget_connection();
            (self.readable, self.writable) = (true, true);
            if let Err(error) = self.watch_connection() {
                crate::console::say(&format!("cannot watch the host's connection: {error}"));
            }
        }
    }

    /// Sends CLOSE and forgets the stream.
    fn close(&mut self, key: u64) {
        let Some(stream) = self.streams.remove(&key) else {
            return;
        };
        self.deadlines.retain(|deadline| deadline.key != key);
        if let (Some(wire), Some(outcome)) = (stream.wire, &stream.outcome) {
            self.by_wire.remove(&wire);
            self.answer(wire, outcome);
        }
    }

    /// Sends CLOSE for a stream that is not, or no longer, in the table.
    fn answer(&mut self, wire: u32, outcome: &Outcome) {
        let text = outcome.to_json().to_string();
        if text.len() <= crate::frame::PAYLOAD_MAX {
            self.outbox.push(Kind::Close, 0, wire, text.as_bytes());
        } else {
            let failure = crate::failure::Failure::new("EMSGSIZE", "the result does not fit a frame");
            self.outbox.push(Kind::Close, 0, wire, failure.to_json().to_string().as_bytes());
        }
    }

    fn event(&mut self, event: &Value) {
        if self.epoch.is_some() {
            self.outbox.push(Kind::Event, 0, 0, event.to_string().as_bytes());
        }
    }
}
