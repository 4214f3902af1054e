//! The frame codec of `docs/guest-protocol.md`: header layout, limits, and the decoder that resynchronises on padding.

/// Bytes of a frame header.
pub const HEADER: usize = 12;
/// Bytes of a whole frame: the most one write(2) to a virtio-serial port takes.
pub const FRAME_MAX: usize = 32 * 1024;
/// Bytes of payload in one frame.
pub const PAYLOAD_MAX: usize = FRAME_MAX - HEADER;
/// Bytes of the nonce in SYNC and HELLO.
pub const NONCE: usize = 16;

/// Consecutive zero bytes after which a decoder that lost its place trusts what follows. The host sends 32 768.
const RESYNC_ZEROS: usize = 16 * 1024;
/// Bytes held by the decoder: a whole frame beside a generous read.
const BUFFER: usize = 128 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Sync = 1,
    Hello = 2,
    Open = 3,
    Opened = 4,
    Data = 5,
    End = 6,
    Credit = 7,
    Control = 8,
    Close = 9,
    Event = 10,
}

impl Kind {
    fn from_wire(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Sync,
            2 => Kind::Hello,
            3 => Kind::Open,
            4 => Kind::Opened,
            5 => Kind::Data,
            6 => Kind::End,
            7 => Kind::Credit,
            8 => Kind::Control,
            9 => Kind::Close,
            10 => Kind::Event,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub channel: u8,
    pub epoch: u16,
    pub stream: u32,
    /// Payload bytes.
    pub length: u32,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind as u8;
        bytes[1] = self.channel;
        bytes[2..4].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// `None` for an unknown type or a length over the limit: the sender and we no longer agree on where frames begin.
    fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let header = Header {
            kind: Kind::from_wire(bytes[0])?,
            channel: bytes[1],
            epoch: u16::from_le_bytes([bytes[2], bytes[3]]),
            stream: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            length: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        };
        (header.length as usize <= PAYLOAD_MAX).then_some(header)
    }
}

/// What the decoder found at the front of its buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole frame; its payload is `Decoder::payload()` until the next call of `next`.
    Frame(Header),
    /// The rest of the frame has not arrived.
    Incomplete,
    /// The bytes are no frame. Reported once; the decoder then discards everything up to the next run of padding.
    Broken,
}

/// Cuts a byte stream into frames, in place and without copying payloads.
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    payload: (usize, usize),
    /// `Some(zeros)`: place lost, that many zero bytes seen in a row.
    lost: Option<usize>,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, payload: (0, 0), lost: None }
    }

    /// Room for the next read: never empty, because a frame is far smaller than the buffer.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < FRAME_MAX {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were read into `space()`.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    pub fn reset(&mut self) {
        (self.start, self.end, self.lost) = (0, 0, None);
    }

    /// From now on discard everything up to the next run of padding.
    pub fn lose(&mut self) {
        self.lost = Some(0);
    }

    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.0..self.payload.1]
    }

    pub fn next(&mut self) -> Step {
        if self.lost.is_some() && !self.find_padding() {
            return Step::Incomplete;
        }
        while self.start < self.end && self.buffer[self.start] == 0 {
            self.start += 1;
        }
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk::<HEADER>() else {
            return Step::Incomplete;
        };
        let Some(header) = Header::decode(bytes) else {
            self.lose();
            return Step::Broken;
        };
        let from = self.start + HEADER;
        let to = from + header.length as usize;
        if to > self.end {
            return Step::Incomplete;
        }
        self.payload = (from, to);
        self.start = to;
        Step::Frame(header)
    }

    fn find_padding(&mut self) -> bool {
        let mut zeros = self.lost.unwrap_or(0);
        while self.start < self.end && zeros < RESYNC_ZEROS {
            zeros = if self.buffer[self.start] == 0 { zeros + 1 } else { 0 };
            self.start += 1;
        }
        let found = zeros >= RESYNC_ZEROS;
        self.lost = if found { None } else { Some(zeros) };
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header { kind, channel: 0, epoch: 7, stream, length: payload.len() as u32 }.encode().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Feeds `bytes` in pieces of `piece` and returns all frames, `None` standing for `Broken`.
    fn decode(bytes: &[u8], piece: usize) -> Vec<Option<(Header, Vec<u8>)>> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for chunk in bytes.chunks(piece) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let space = decoder.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                decoder.filled(count);
                rest = &rest[count..];
                loop {
                    match decoder.next() {
                        Step::Frame(header) => found.push(Some((header, decoder.payload().to_vec()))),
                        Step::Broken => found.push(None),
                        Step::Incomplete => break,
                    }
                }
            }
        }
        found
    }

    #[test]
    fn frames_survive_any_split() {
        let mut bytes = vec![0; 5];
        bytes.extend(frame(Kind::Data, 9, &vec![3; PAYLOAD_MAX]));
        bytes.extend(frame(Kind::End, 9, b""));
        bytes.extend([0, 0]);
        bytes.extend(frame(Kind::Open, 10, b"{}"));
        for piece in [1, 7, 11, 12, 13, 4096, 70_000] {
            let found = decode(&bytes, piece);
            let shape: Vec<_> = found.iter().flatten().map(|(h, p)| (h.kind, h.stream, p.len())).collect();
            assert_eq!(
                shape,
                [(Kind::Data, 9, PAYLOAD_MAX), (Kind::End, 9, 0), (Kind::Open, 10, 2)],
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn padding_completes_any_cut_frame_and_sync_is_found() {
        let whole = frame(Kind::Data, 1, &vec![0xff; 30_000]);
        for cut in (0..40).chain([11, 12, 13, 15_000, 30_011, 30_012]) {
            let mut bytes = whole[..cut].to_vec();
            bytes.extend(vec![0; FRAME_MAX]);
            bytes.extend(frame(Kind::Sync, 0, &[5; NONCE]));
            let found = decode(&bytes, 4096);
            let (header, payload) = found.last().cloned().flatten().expect("a frame");
            assert_eq!((header.kind, payload), (Kind::Sync, vec![5; NONCE]), "cut at {cut}");
        }
    }

    #[test]
    fn oversized_length_is_reported_once_and_padding_recovers() {
        let mut bytes = vec![5, 0, 7, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0];
        bytes.extend(vec![0xaa; 50_000]);
        bytes.extend(vec![0; FRAME_MAX]);
        bytes.extend(frame(Kind::Sync, 0, &[5; NONCE]));
        for piece in [1, 4096] {
            let found = decode(&bytes, piece);
            assert_eq!(found.len(), 2);
            assert!(found[0].is_none());
            assert_eq!(found[1].as_ref().expect("a frame").0.kind, Kind::Sync);
        }
    }

    #[test]
    fn random_bytes_never_stop_a_later_sync() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..300 {
            let mut bytes = Vec::new();
            for _ in 0..(state % 5000) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Small values often, so that plausible headers appear.
                bytes.push(if state & 3 == 0 { (state >> 8) as u8 } else { (state >> 8) as u8 & 11 });
            }
            bytes.extend(vec![0; FRAME_MAX]);
            bytes.extend(frame(Kind::Sync, 0, &[6; NONCE]));
            let found = decode(&bytes, 4096);
            assert_eq!(found.last().cloned().flatten().expect("a frame").1, vec![6; NONCE]);
            state = state.wrapping_add(0x1234_5678_9abc_def1);
        }
    }
}
