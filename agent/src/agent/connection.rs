//! What comes from the host: SYNC, and the frames of streams.

use super::{Agent, Init};
use crate::channel::Channel;
use crate::frame::{Header, Kind, NONCE, Step};
use crate::identity::ids;
use crate::mux::stream::Work;
use crate::ops::request::Control;
use crate::process::terminal;
use crate::sys;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// Version of the protocol.
const VERSION: u32 = 1;
/// What the first agents of this version did not know: a host asks for these only where they are named.
const FEATURES: [&str; 6] = ["accept", "dial_udp", "dial_window", "hold_limit", "watch_listeners", "whose"];
/// Bytes of one request, all its OPEN frames together.
const REQUEST_MAX: usize = 4 * 1024 * 1024;
/// Bytes of all requests of which only a part has come.
const OPENING_MAX: usize = 16 * 1024 * 1024;
/// Reads from the host between two turns of everything else.
const READS: usize = 32;
/// Bytes of the buffers of a virtio-serial port.
const PAGE: usize = 4096;
/// Highest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// Requests of which only a part has come.
#[derive(Default)]
pub struct Opening {
    parts: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
}

impl Opening {
    /// Adds a part. `Ok(Some)` is the whole request; `Err` means that the host overdoes it.
    fn add(&mut self, wire: u32, payload: &[u8], more: bool) -> Result<Option<Vec<u8>>, ()> {
        if !more && !self.parts.contains_key(&wire) {
            return Ok(Some(payload.to_vec()));
        }
        let part = self.parts.entry(wire).or_default();
        part.extend_from_slice(payload);
        self.bytes += payload.len();
        if part.len() > REQUEST_MAX || self.bytes > OPENING_MAX {
            return Err(());
        }
        if more {
            return Ok(None);
        }
        let whole = self.parts.remove(&wire).unwrap_or_default();
        self.bytes -= whole.len();
        Ok(Some(whole))
    }

    fn cancel(&mut self, wire: u32) -> bool {
        match self.parts.remove(&wire) {
            Some(part) => {
                self.bytes -= part.len();
                true
            }
            None => false,
        }
    }

    fn clear(&mut self) {
        *self = Opening::default();
    }
}

impl Agent {
    /// Reads and handles what the host has sent. False when an inherited connection has ended.
    pub(super) fn receive(&mut self) -> bool {
        for _ in 0..READS {
            if !self.readable || !self.outbox.takes_answers() {
                return true;
            }
            let Some(fd) = self.channel.fd() else {
                self.readable = false;
                return true;
            };
            match sys::read(fd, self.decoder.space()) {
                Ok(0) => return self.connection_ended(),
                Ok(count) => {
                    self.decoder.filled(count);
                    // A port gives a page at most. What is left after less than that is told again, unless only edges are told.
                    self.readable = count >= PAGE || self.hung_up;
                    self.handle_frames();
                }
                Err(error) if sys::would_block(&error) => self.readable = false,
                Err(_) => return self.connection_ended(),
            }
        }
        true
    }

    fn connection_ended(&mut self) -> bool {
        self.readable = false;
        match &mut self.channel {
            // No host has the port open: what it comes back with begins with padding and SYNC.
            Channel::Port(_) => true,
            Channel::Vsock { connection, .. } => {
                *connection = None;
                self.forget_connection();
                true
            }
            Channel::Inherited(_) => {
                self.forget_connection();
                false
            }
        }
    }

    /// Ends all that belonged to the connection before.
    pub(super) fn forget_connection(&mut self) {
        self.decoder.reset();
        self.abort_everything();
    }

    fn abort_everything(&mut self) {
        self.epoch = None;
        self.outbox.clear();
        self.opening.clear();
        self.by_wire.clear();
        // Nobody takes what would wait there.
        self.listeners.clear();
        let keys: Vec<u64> = self.streams.keys().copied().collect();
        for key in keys {
            if let Some(stream) = self.streams.get_mut(&key) {
                stream.wire = None;
            }
            self.abort(key);
        }
    }

    /// The host and we no longer agree: drop everything and wait for its padding and SYNC.
    fn protocol_error(&mut self, message: &str) {
        let epoch = self.epoch;
        self.abort_everything();
        self.decoder.lose();
        if epoch.is_some() {
            let event = json!({"event": "protocol_error", "message": message});
            self.outbox.push(Kind::Event, 0, 0, event.to_string().as_bytes());
        }
        if let Channel::Vsock { connection, .. } = &mut self.channel {
            *connection = None;
        }
    }

    fn handle_frames(&mut self) {
        loop {
            match self.decoder.next() {
                Step::Incomplete => return,
                Step::Broken if self.epoch.is_some() => self.protocol_error("not a frame"),
                Step::Broken => {}
                Step::Frame(header) if header.kind == Kind::Sync => self.sync(header),
                Step::Frame(header) if Some(header.epoch) == self.epoch && header.stream != 0 => {
                    if let Err(message) = self.handle(header) {
                        self.protocol_error(message);
                    }
                }
                Step::Frame(_) => {}
            }
        }
    }

    fn sync(&mut self, header: Header) {
        let Ok(nonce) = <[u8; NONCE]>::try_from(self.decoder.payload()) else {
            return;
        };
        self.abort_everything();
        self.epoch = Some(header.epoch);
        self.outbox.epoch = header.epoch;
        self.writable = true;
        let hello = json!({
            "version": VERSION,
            "agent": env!("CARGO_PKG_VERSION"),
            "boot_id": ids::boot_id(),
            "kernel": kernel_release(),
            "phase": if self.init == Init::Waiting { "configure" } else { "running" },
            "features": FEATURES,
            "init": if let Init::Started(path) = &self.init { Some(path) } else { None },
        });
        let payload = [&nonce[..], hello.to_string().as_bytes()].concat();
        self.outbox.push(Kind::Hello, 0, 0, &payload);
    }

    fn handle(&mut self, header: Header) -> Result<(), &'static str> {
        let wire = header.stream;
        if header.kind == Kind::Open {
            if self.by_wire.contains_key(&wire) {
                return Err("OPEN of a stream that is open");
            }
            let whole = self.opening.add(wire, self.decoder.payload(), header.channel != 0);
            if let Some(body) = whole.map_err(|()| "a request is too long")? {
                self.open(wire, &body);
            }
            return Ok(());
        }
        let Some(&key) = self.by_wire.get(&wire) else {
            if header.kind == Kind::Close && self.opening.cancel(wire) {
                let failure = crate::failure::Failure::new("ECANCELED", "the host gave up");
                self.answer(wire, &crate::mux::stream::Outcome::Failed(failure));
            }
            return Ok(());
        };
        match header.kind {
            Kind::Data => self.data(key, wire)?,
            Kind::End => self.with_sink(key, |stream| {
                stream.end();
                0
            }),
            Kind::Credit => {
                let payload = <[u8; 4]>::try_from(self.decoder.payload()).map_err(|_| "CREDIT is not four bytes")?;
                self.credit(key, u32::from_le_bytes(payload));
            }
            Kind::Control => self.control(key),
            Kind::Close => self.abort(key),
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, key: u64, wire: u32) -> Result<(), &'static str> {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Ok(());
        };
        let payload = self.decoder.payload();
        if !stream.receive.accept(payload.len()) {
            return Err("more DATA than was granted");
        }
        if stream.ended {
            return Err("DATA after END");
        }
        let done = stream.deliver(payload);
        if let Some(grant) = stream.receive.take(done) {
            self.outbox.push(Kind::Credit, 0, wire, &grant.to_le_bytes());
        }
        self.watch_sink(key);
        self.finish_if_done(key);
        Ok(())
    }

    fn control(&mut self, key: u64) {
        let Ok(control) = serde_json::from_slice::<Control>(self.decoder.payload()) else {
            return;
        };
        let Some(stream) = self.streams.get(&key) else { return };
        let Work::Process { pid, terminal } = stream.work else {
            return;
        };
        if let (Some(size), true, Some(sink)) = (control.resize, terminal, &stream.sink) {
            // Fails only when the terminal is gone, and then there is nothing to resize.
            let _ = terminal::resize(sink.fd.as_fd(), size.cols, size.rows);
        }
        // Once the process has been waited for, its number may be another's.
        if let (Some(signal @ 1..=SIGNAL_MAX), None) = (control.signal, &stream.outcome) {
            let _ = sys::kill(-pid, signal);
        }
    }
}

/// Does not change while we live.
fn kernel_release() -> &'static str {
    static RELEASE: OnceLock<String> = OnceLock::new();
    RELEASE.get_or_init(|| fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_parts_and_are_bounded() {
        let mut opening = Opening::default();
        assert_eq!(opening.add(1, b"{}", false), Ok(Some(b"{}".to_vec())));
        assert_eq!(opening.add(2, b"ab", true), Ok(None));
        assert_eq!(opening.add(3, b"x", true), Ok(None));
        assert_eq!(opening.add(2, b"cd", false), Ok(Some(b"abcd".to_vec())));
        assert!(opening.cancel(3) && !opening.cancel(3));
        assert_eq!(opening.bytes, 0);
        assert_eq!(opening.add(4, &vec![0; REQUEST_MAX], true), Ok(None));
        assert_eq!(opening.add(4, b"1", true), Err(()));
    }
}
