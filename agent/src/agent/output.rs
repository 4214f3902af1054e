//! What goes to the host: DATA of all sources in turns, credit for what consumers take, and the connection's writes.

use super::{Agent, SLOT_SINK};
use crate::channel::Channel;
use crate::frame::{Kind, PAYLOAD_MAX};
use crate::mux::datagram::{LONGEST, PREFIX};
use crate::mux::stream::{Medium, Outcome, Stream, Work};
use crate::ops::dial;
use crate::sys;
use std::os::fd::AsFd;

/// DATA frames between two looks at what else has happened.
const FRAMES: usize = 32;

/// What the kernel says of a descriptor that has come to its end.
const ENDING: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// What came of one source's turn.
enum Turn {
    /// Nothing to send for now.
    Idle,
    /// It may have more.
    Again,
    Ended,
}

impl Agent {
    pub(super) fn source_ready(&mut self, key: u64, slot: usize, events: u32) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let Some(source) = stream.sources.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        source.ready = true;
        source.ending |= events & ENDING != 0;
        if stream.aborted {
            self.discard(key, slot);
        } else {
            self.enqueue(key, slot);
        }
    }

    /// Gives a ready source its place in the queue, unless it has one or may not send.
    pub(super) fn enqueue(&mut self, key: u64, slot: usize) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        if let Some(source) = &mut stream.sources[slot]
            && source.ready
            && !source.queued
        {
            source.queued = true;
            self.queue.push_back((key, slot));
        }
    }

    pub(super) fn credit(&mut self, key: u64, bytes: u32) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.send.grant(bytes);
        for slot in 0..stream.sources.len() {
            self.enqueue(key, slot);
        }
    }

    /// Sends DATA while the connection takes it.
    pub(super) fn pump(&mut self) {
        for _ in 0..FRAMES {
            if self.queue.is_empty() {
                return;
            }
            if !self.outbox.takes_data() {
                self.flush();
                if !self.outbox.takes_data() {
                    return;
                }
            }
            let Some((key, slot)) = self.queue.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&key) else {
                continue;
            };
            if let Some(source) = &mut stream.sources[slot] {
                source.queued = false;
            }
            match self.turn(key, slot) {
                Turn::Idle => {}
                Turn::Again => self.enqueue(key, slot),
                Turn::Ended => self.source_ended(key, slot),
            }
        }
    }

    fn turn(&mut self, key: u64, slot: usize) -> Turn {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Turn::Idle;
        };
        let credit = stream.send.available();
        let Some(source) = &mut stream.sources[slot] else {
            return Turn::Idle;
        };
        if source.medium == Medium::Datagrams {
            return self.datagram(key, slot);
        }
        let want = credit.min(PAYLOAD_MAX).min(source.left.unwrap_or(usize::MAX));
        if want == 0 {
            return if source.left == Some(0) { Turn::Ended } else { Turn::Idle };
        }
        let space = self.outbox.data_space(want);
        let room = space.len();
        match sys::read(source.fd.as_fd(), space) {
            Ok(0) => Turn::Ended,
            Ok(count) => {
                stream.send.spend(count);
                if let Some(left) = &mut source.left {
                    *left -= count.min(*left);
                }
                let done = source.left == Some(0);
                // A socket that gives less than was asked for is empty, and what comes next has an edge of its own. Of the others, and of a
                // socket whose end has come, only EAGAIN says so: the end's edge may have come before this read.
                let empty = source.medium == Medium::Socket && count < room && !source.ending;
                source.ready = !empty;
                if let Some(wire) = stream.wire {
                    self.outbox.commit(Kind::Data, slot as u8, wire, count);
                }
                match (done, empty) {
                    (true, _) => Turn::Ended,
                    (false, true) => Turn::Idle,
                    (false, false) => Turn::Again,
                }
            }
            Err(error) if sys::would_block(&error) => {
                source.ready = false;
                if source.left.is_some() { Turn::Ended } else { Turn::Idle }
            }
            Err(error) => {
                // A terminal without programs answers EIO: its end. A connection's error is its result.
                if source.medium == Medium::Socket {
                    stream.sink = None;
                    stream.outcome = Some(Outcome::Failed(error.into()));
                }
                Turn::Ended
            }
        }
    }

    /// Sends one datagram behind its length. One that there is no credit for waits in the socket, which drops what is too much.
    fn datagram(&mut self, key: u64, slot: usize) -> Turn {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Turn::Idle;
        };
        let (Some(source), Some(wire)) = (&mut stream.sources[slot], stream.wire) else {
            return Turn::Idle;
        };
        if stream.send.available() < PREFIX + LONGEST {
            return Turn::Idle;
        }
        let mut buffer = vec![0; PREFIX + LONGEST];
        match sys::read(source.fd.as_fd(), &mut buffer[PREFIX..]) {
            Ok(length) => {
                buffer.truncate(PREFIX + length);
                buffer[..PREFIX].copy_from_slice(&(length as u16).to_le_bytes());
                stream.send.spend(buffer.len());
                for part in buffer.chunks(PAYLOAD_MAX) {
                    self.outbox.push(Kind::Data, slot as u8, wire, part);
                }
                Turn::Again
            }
            Err(error) if sys::would_block(&error) => {
                source.ready = false;
                Turn::Idle
            }
            // Nothing listens there: the one thing that a datagram's sender may be told.
            Err(error) => {
                stream.sink = None;
                stream.outcome = Some(Outcome::Failed(error.into()));
                Turn::Ended
            }
        }
    }

    /// Reads and drops what a worker still writes after its stream was aborted, so that it gets to its end.
    pub(super) fn discard(&mut self, key: u64, slot: usize) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let mut scratch = [0; 16 * 1024];
        while let Some(source) = &stream.sources[slot] {
            match sys::read(source.fd.as_fd(), &mut scratch) {
                Ok(count) if count > 0 => {}
                Err(error) if sys::would_block(&error) => return,
                _ => return self.source_ended(key, slot),
            }
        }
    }

    fn source_ended(&mut self, key: u64, slot: usize) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.sources[slot] = None;
        match &stream.work {
            Work::Process { .. } | Work::Accepting => {}
            Work::Connection { .. } => {
                if let (None, None, Some(wire)) = (&stream.outcome, &stream.broken, stream.wire) {
                    self.outbox.push(Kind::End, slot as u8, wire, b"");
                }
            }
            Work::Worker(shared) => {
                stream.sink = None;
                stream.outcome = Some(shared.take_result().into());
            }
        }
        self.finish_if_done(key);
    }

    /// Closes a stream that has its outcome and nothing more to deliver.
    pub(super) fn finish_if_done(&mut self, key: u64) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        if stream.sources.iter().any(Option::is_some) {
            return;
        }
        if stream.outcome.is_none() && matches!(stream.work, Work::Connection { .. }) && stream.sink.is_none() {
            stream.outcome = Some(match stream.broken.take() {
                Some(failure) => Outcome::Failed(failure),
                None => Outcome::Ok(serde_json::json!({})),
            });
        }
        if stream.outcome.is_some() {
            self.close(key);
        }
    }

    pub(super) fn sink_ready(&mut self, key: u64) {
        let Some(stream) = self.streams.get(&key) else { return };
        if matches!(stream.work, Work::Connection { connecting: true }) {
            self.connected(key);
        }
        self.with_sink(key, Stream::drain_inbox);
    }

    /// The attempt to connect has ended.
    fn connected(&mut self, key: u64) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let Some(sink) = &stream.sink else { return };
        match dial::outcome(sink.fd.as_fd()) {
            Ok(()) => {
                stream.work = Work::Connection { connecting: false };
                if let Some(wire) = stream.wire {
                    self.outbox.push(Kind::Opened, 0, wire, b"{}");
                }
            }
            Err(error) => {
                stream.sink = None;
                stream.sources = [None, None];
                stream.outcome = Some(Outcome::Failed(crate::failure::Failure::io("connect", &error)));
            }
        }
    }

    /// Does something that feeds the sink, then grants what was taken and sees what it has led to.
    pub(super) fn with_sink(&mut self, key: u64, feed: impl FnOnce(&mut Stream) -> usize) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let done = feed(stream);
        if let (Some(grant), Some(wire)) = (stream.receive.take(done), stream.wire) {
            self.outbox.push(Kind::Credit, 0, wire, &grant.to_le_bytes());
        }
        self.watch_sink(key);
        self.finish_if_done(key);
    }

    /// Registers a sink that has said EAGAIN.
    pub(super) fn watch_sink(&mut self, key: u64) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let waiting = stream.has_waiting();
        let Some(sink) = &mut stream.sink else { return };
        if waiting && !sink.watched {
            sink.watched = true;
            if self.epoll.add(sink.fd.as_fd(), libc::EPOLLOUT, key << 2 | SLOT_SINK).is_err() {
                stream.sink = None;
            }
        }
    }

    /// Writes what waits for the connection.
    pub(super) fn flush(&mut self) {
        if !self.writable || self.outbox.is_empty() {
            return;
        }
        let Some(fd) = self.channel.fd() else {
            return self.outbox.clear();
        };
        match self.outbox.flush(fd) {
            Ok(all) => self.writable = all,
            // The port was unplugged or the peer is gone; the read side finds out and cleans up.
            Err(_) => {
                self.writable = false;
                self.outbox.clear();
                self.readable |= !matches!(self.channel, Channel::Port(_));
            }
        }
    }
}
