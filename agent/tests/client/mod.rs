//! A small host for tests: runs the real agent on a socket pair and speaks the protocol with it, blocking and in order.

// Each test program uses a part of it.
#![allow(dead_code)]

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const HELLO: u8 = 2;
pub const OPEN: u8 = 3;
pub const OPENED: u8 = 4;
pub const DATA: u8 = 5;
pub const END: u8 = 6;
pub const CREDIT: u8 = 7;
pub const CONTROL: u8 = 8;
pub const CLOSE: u8 = 9;
pub const EVENT: u8 = 10;

pub const PAYLOAD_MAX: usize = 32_756;
pub const WINDOW: usize = 262_144;
/// Nothing here takes long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub channel: u8,
    pub epoch: u16,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("a JSON payload")
    }
}

/// What a stream has come to.
#[derive(Debug, Default)]
pub struct Finished {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub result: Value,
}

pub struct Agent {
    pub socket: UnixStream,
    process: Child,
    epoch: u16,
    next_stream: u32,
    /// Credit for what we send, by stream.
    credit: HashMap<u32, usize>,
    /// What was received is granted back in steps of so many bytes.
    pub step: usize,
    /// Frames that came while another was waited for.
    kept: Vec<Frame>,
}

impl Agent {
    pub fn start() -> Agent {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        ours.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        let process = Command::new(env!("CARGO_BIN_EXE_banger-vsock-agent"))
            .args(["--serve-fd", "0"])
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("the agent");
        let (credit, kept) = (HashMap::new(), Vec::new());
        let mut agent = Agent { socket: ours, process, epoch: 0, next_stream: 0, credit, step: WINDOW / 4, kept };
        agent.sync();
        agent
    }

    /// Starts a new epoch, as a host does after it has lost the old one, and returns the HELLO.
    pub fn sync(&mut self) -> Value {
        self.epoch += 1;
        self.credit.clear();
        self.kept.clear();
        let nonce = [self.epoch as u8 + 100; 16];
        self.socket.write_all(&vec![0; 32_768]).expect("padding");
        self.send(1, 0, 0, &nonce);
        let mut seen = Vec::new();
        loop {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).expect("a HELLO");
            seen.push(byte[0]);
            if seen.ends_with(&nonce) && seen.len() >= 28 && seen[seen.len() - 28] == HELLO {
                break;
            }
        }
        let length = u32::from_le_bytes(seen[seen.len() - 20..seen.len() - 16].try_into().expect("four bytes"));
        let mut rest = vec![0; length as usize - 16];
        self.socket.read_exact(&mut rest).expect("the rest of HELLO");
        serde_json::from_slice(&rest).expect("HELLO is JSON")
    }

    pub fn send(&mut self, kind: u8, channel: u8, stream: u32, payload: &[u8]) {
        let mut frame = vec![kind, channel];
        frame.extend(self.epoch.to_le_bytes());
        frame.extend(stream.to_le_bytes());
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).expect("the agent reads");
    }

    pub fn open(&mut self, request: &Value) -> u32 {
        self.next_stream += 1;
        let body = request.to_string().into_bytes();
        let parts: Vec<&[u8]> = body.chunks(PAYLOAD_MAX).collect();
        for (index, part) in parts.iter().enumerate() {
            self.send(OPEN, u8::from(index + 1 < parts.len()), self.next_stream, part);
        }
        let window = request["window"].as_u64().map_or(WINDOW, |window| window as usize);
        self.credit.insert(self.next_stream, window);
        self.next_stream
    }

    /// The next frame of this epoch, whatever stream it is of.
    pub fn receive(&mut self) -> Frame {
        loop {
            let mut header = [0; 12];
            self.socket.read_exact(&mut header).expect("a frame");
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
            let mut payload = vec![0; word(8) as usize];
            assert!(payload.len() <= PAYLOAD_MAX && (1..=EVENT).contains(&header[0]), "not a frame: {header:?}");
            self.socket.read_exact(&mut payload).expect("a payload");
            let epoch = u16::from_le_bytes([header[2], header[3]]);
            let frame = Frame { kind: header[0], channel: header[1], epoch, stream: word(4), payload };
            if frame.kind == CREDIT {
                let grant = u32::from_le_bytes(frame.payload[..].try_into().expect("four bytes"));
                *self.credit.entry(frame.stream).or_default() += grant as usize;
            }
            if epoch == self.epoch {
                return frame;
            }
        }
    }

    /// The next frame that `wanted` accepts; others are kept for later.
    pub fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(index) = self.kept.iter().position(&wanted) {
            return self.kept.remove(index);
        }
        loop {
            let frame = self.receive();
            if wanted(&frame) {
                return frame;
            }
            self.kept.push(frame);
        }
    }

    /// Sends `input` as credit allows, then END, while taking the output; returns what the stream comes to.
    pub fn finish(&mut self, stream: u32, input: &[u8]) -> Finished {
        let mut finished = Finished::default();
        let (mut at, mut ended, mut ungranted) = (0, false, 0);
        loop {
            while at < input.len() && self.credit[&stream] > 0 {
                let count = PAYLOAD_MAX.min(self.credit[&stream]).min(input.len() - at);
                self.send(DATA, 0, stream, &input[at..at + count]);
                *self.credit.entry(stream).or_default() -= count;
                at += count;
            }
            if at == input.len() && !ended {
                self.send(END, 0, stream, b"");
                ended = true;
            }
            let frame = self.wait_for(|frame| frame.stream == stream);
            match frame.kind {
                DATA => {
                    ungranted += frame.payload.len();
                    if ungranted >= self.step {
                        self.send(CREDIT, 0, stream, &(ungranted as u32).to_le_bytes());
                        ungranted = 0;
                    }
                    let out = if frame.channel == 1 { &mut finished.err } else { &mut finished.out };
                    out.extend(frame.payload);
                }
                CLOSE => {
                    finished.result = frame.json();
                    return finished;
                }
                _ => {}
            }
        }
    }

    pub fn call(&mut self, request: Value) -> Finished {
        let stream = self.open(&request);
        self.finish(stream, b"")
    }

    pub fn call_with(&mut self, request: Value, input: &[u8]) -> Finished {
        let stream = self.open(&request);
        self.finish(stream, input)
    }

    pub fn exec(&mut self, argv: &[&str]) -> Finished {
        self.call(json!({"op": "exec", "argv": argv}))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its end of the socket pair is the agent's end: it goes by itself.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// A folder that is removed at the end of a test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("banger-agent-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes that no compression or zero page could stand in for.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(count)
    .collect()
}

/// The errno name of a failed result.
pub fn code(finished: &Finished) -> &str {
    finished.result["error"]["code"].as_str().unwrap_or("no error")
}
