//! `accept`: connections that programs of the guest make to a port of its loopback, each joined to a stream that the host has opened for it. Without
//! such a stream they wait with the kernel, so that the host decides how many there are at once.

use super::{Agent, SLOT_LISTENER};
use crate::channel;
use crate::failure::{Failure, on};
use crate::frame::Kind;
use crate::mux::stream::{Medium, Outcome, Sink, Source, Stream, Work};
use crate::ops::listen;
use crate::ops::request::Accept;
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A port that the host accepts connections of, until it says stop or greets anew.
pub struct Listener {
    port: u16,
    fd: OwnedFd,
    /// Keys of the streams that wait for a connection, the first come first.
    waiting: VecDeque<u64>,
}

impl Agent {
    pub(super) fn start_accepting(&mut self, wire: u32, request: &Accept) -> Result<(), Failure> {
        if request.stop {
            // What waits there is reset: nobody takes it any more.
            self.listeners.retain(|_, listener| listener.port != request.port);
            return self.reply(wire, json!({}));
        }
        let mut stream = Stream::new(wire, Work::Accepting);
        stream.set_window(request.window)?;
        let listener = match self.listeners.iter().find(|(_, listener)| listener.port == request.port) {
            Some((&key, _)) => key,
            None => self.listen(request.port).map_err(on(format!("port {}", request.port)))?,
        };
        let key = self.insert(wire, stream)?;
        if let Some(listener) = self.listeners.get_mut(&listener) {
            listener.waiting.push_back(key);
        }
        self.accept_waiting(listener);
        Ok(())
    }

    fn listen(&mut self, port: u16) -> io::Result<u64> {
        let fd = listen::on_loopback(port)?;
        let key = self.next_key;
        self.next_key += 1;
        self.epoll.add(fd.as_fd(), libc::EPOLLIN, key << 2 | SLOT_LISTENER)?;
        self.listeners.insert(key, Listener { port, fd, waiting: VecDeque::new() });
        Ok(key)
    }

    /// Gives each stream that waits a connection, as long as there are both.
    pub(super) fn accept_waiting(&mut self, listener: u64) {
        while let Some(Listener { fd, waiting, .. }) = self.listeners.get_mut(&listener) {
            let Some(&key) = waiting.front() else { return };
            if !self.streams.contains_key(&key) {
                // The host has given it up.
                waiting.pop_front();
                continue;
            }
            let connection = match channel::accept(fd.as_fd()) {
                Ok(connection) => connection,
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                Err(_) => return,
            };
            waiting.pop_front();
            if let Err(error) = self.join(key, connection) {
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.sink = None;
                    stream.sources = [None, None];
                    stream.outcome = Some(Outcome::Failed(error.into()));
                }
                self.finish_if_done(key);
            }
        }
    }

    fn join(&mut self, key: u64, connection: OwnedFd) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Ok(());
        };
        listen::without_delay(connection.as_fd());
        let peer = listen::peer_port(connection.as_fd()).ok();
        let reader = connection.try_clone()?;
        self.epoll.add(reader.as_fd(), libc::EPOLLIN | libc::EPOLLRDHUP, key << 2)?;
        stream.work = Work::Connection { connecting: false };
        stream.sink = Some(Sink { fd: connection, medium: Medium::Socket, watched: false });
        stream.sources[0] = Some(Source::new(reader, Medium::Socket));
        if let Some(wire) = stream.wire {
            self.outbox.push(Kind::Opened, 0, wire, json!({"peer": peer}).to_string().as_bytes());
        }
        Ok(())
    }
}
