//! Frames on their way to the host: one contiguous buffer, so that a full DATA frame or many small ones leave in one write(2).

use crate::frame::{FRAME_MAX, HEADER, Header, Kind, PAYLOAD_MAX};
use crate::sys;
use std::os::fd::BorrowedFd;

/// Bytes waiting beyond which DATA is no longer added.
const DATA_LIMIT: usize = FRAME_MAX / 2;
/// Bytes waiting beyond which nothing more is read from the host, so that its requests cannot pile up answers.
const CONTROL_LIMIT: usize = 1024 * 1024;
/// Bytes of buffer kept for good; what a burst of answers needed beyond that is given back.
const KEEP: usize = 2 * FRAME_MAX;

pub struct Outbox {
    /// Initialised storage; the frames are in `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub epoch: u16,
}

impl Outbox {
    pub fn new() -> Outbox {
        Outbox { buffer: vec![0; KEEP], start: 0, end: 0, epoch: 0 }
    }

    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.buffer.truncate(KEEP);
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn takes_data(&self) -> bool {
        self.end - self.start < DATA_LIMIT
    }

    pub fn takes_answers(&self) -> bool {
        self.end - self.start < CONTROL_LIMIT
    }

    /// Adds a frame. A payload over the limit is a mistake of ours and is cut: every caller keeps within it.
    pub fn push(&mut self, kind: Kind, channel: u8, stream: u32, payload: &[u8]) {
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        let payload = &payload[..payload.len().min(PAYLOAD_MAX)];
        self.reserve(HEADER + payload.len());
        let body = self.end + HEADER;
        self.buffer[body..body + payload.len()].copy_from_slice(payload);
        self.commit(kind, channel, stream, payload.len());
    }

    /// Where the payload of the next DATA frame may be read into, at most `want` bytes.
    pub fn data_space(&mut self, want: usize) -> &mut [u8] {
        let used = self.end - self.start;
        let room = FRAME_MAX.saturating_sub(used + HEADER).min(want);
        self.reserve(HEADER + room);
        let body = self.end + HEADER;
        &mut self.buffer[body..body + room]
    }

    /// Turns the first `length` bytes of `data_space` into a frame.
    pub fn commit(&mut self, kind: Kind, channel: u8, stream: u32, length: usize) {
        let header = Header { kind, channel, epoch: self.epoch, stream, length: length as u32 };
        self.buffer[self.end..self.end + HEADER].copy_from_slice(&header.encode());
        self.end += HEADER + length;
    }

    /// Writes what the connection takes. True when nothing is left.
    pub fn flush(&mut self, fd: BorrowedFd) -> std::io::Result<bool> {
        while self.start < self.end {
            let upto = self.end.min(self.start + FRAME_MAX);
            match sys::write(fd, &self.buffer[self.start..upto]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.start += count,
                Err(error) if sys::would_block(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(true)
    }

    fn reserve(&mut self, bytes: usize) {
        if self.end + bytes > self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end + bytes > self.buffer.len() {
            self.buffer.resize((self.end + bytes).next_power_of_two(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn partial_writes_lose_and_repeat_nothing() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("non-blocking");
        theirs.set_nonblocking(true).expect("non-blocking");
        let mut outbox = Outbox::new();
        let (mut sent, mut received): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for round in 0..400_u32 {
            let payload: Vec<u8> = (0..(round * 97) % 9000).map(|i| (i + round) as u8).collect();
            let header = Header { kind: Kind::Data, channel: 1, epoch: 0, stream: round, length: payload.len() as u32 };
            sent.extend(header.encode());
            sent.extend(&payload);
            outbox.push(Kind::Data, 1, round, &payload);
            outbox.flush(ours.as_fd()).expect("flush");
            if round % 7 == 0 {
                let mut piece = vec![0; 10_000];
                if let Ok(count) = theirs.read(&mut piece) {
                    received.extend(&piece[..count]);
                }
            }
        }
        let mut done = false;
        while !done || received.len() < sent.len() {
            done = outbox.flush(ours.as_fd()).expect("flush");
            let mut piece = vec![0; 100_000];
            if let Ok(count) = theirs.read(&mut piece) {
                received.extend(&piece[..count]);
            }
        }
        assert!(sent == received);
    }

    #[test]
    fn a_full_data_frame_is_one_write() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.data_space(usize::MAX).len(), PAYLOAD_MAX);
        outbox.commit(Kind::Data, 0, 1, PAYLOAD_MAX);
        assert!(!outbox.takes_data());
    }
}
