//! OPEN: what each operation starts.

use super::{Agent, Init, SLOT_SINK};
use crate::failure::Failure;
use crate::frame::Kind;
use crate::mux::stream::{Medium, Outcome, Sink, Source, Stream, Work};
use crate::ops::request::{Configure, Dial, Exec, Listeners, Request};
use crate::ops::worker::{self, Desk};
use crate::ops::{configure, dial, files, grow, listeners, metrics, tar_in, tar_out, transfer, whose};
use crate::process::launch::Process;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Streams at once, those that are being ended included.
const STREAMS_MAX: usize = 8192;

impl Agent {
    pub(super) fn open(&mut self, wire: u32, body: &[u8]) {
        let started = if self.streams.len() >= STREAMS_MAX {
            Err(Failure::new("EAGAIN", format!("more than {STREAMS_MAX} streams")))
        } else {
            serde_json::from_slice(body)
                .map_err(|error| Failure::new("EPROTO", format!("the request is not understood: {error}")))
                .and_then(|request| self.start(wire, request))
        };
        if let Err(failure) = started {
            self.answer(wire, &Outcome::Failed(failure));
        }
    }

    fn start(&mut self, wire: u32, request: Request) -> Result<(), Failure> {
        let nobody = self.unconfigured || self.turn.has_failed();
        if nobody && !matches!(request, Request::Configure(_)) {
            return Err(Failure::new("EAGAIN", "the guest could not become who it is to be"));
        }
        if matches!(request, Request::Dial(_) | Request::Sync | Request::Shutdown(_)) {
            self.turn.services_go_on();
        }
        match request {
            Request::Exec(exec) => self.start_process(wire, &exec),
            Request::Dial(dial) => self.start_connection(wire, &dial),
            Request::Accept(accept) => self.start_accepting(wire, &accept),
            Request::Read(read) => self.start_worker(wire, false, move |desk| transfer::read(desk, &read)),
            Request::Write(write) => self.start_worker(wire, true, move |desk| transfer::write(desk, &write)),
            Request::List(list) => self.start_worker(wire, false, move |desk| files::list(desk, &list)),
            Request::TarOut(tar) => self.start_worker(wire, false, move |desk| tar_out::run(desk, &tar)),
            Request::TarIn(tar) => self.start_worker(wire, true, move |desk| tar_in::run(desk, &tar)),
            Request::Listeners(Listeners { watch: true, udp }) => {
                self.start_worker(wire, false, move |desk| listeners::watch(desk, udp))
            }
            Request::Listeners(Listeners { udp, .. }) => self.start_worker(wire, false, move |_| listeners::run(udp)),
            Request::Whose(request) => self.start_worker(wire, false, move |_| whose::run(&request)),
            Request::Grow(request) => {
                let disk = self.boot.disk.as_ref().map(|disk| disk.try_clone()).transpose()?;
                self.start_worker(wire, false, move |_| grow::run(disk, &request))
            }
            Request::Sync => {
                self.turn.finish_files()?;
                self.start_worker(wire, false, |_| {
                    // SAFETY: takes and returns nothing.
                    unsafe { libc::sync() };
                    Ok(json!({}))
                })
            }
            Request::Stat(stat) => self.reply(wire, files::stat(&stat)?),
            Request::Metrics => self.reply(wire, metrics::run()?),
            Request::Clock(clock) => {
                configure::set_clock(&clock.clock_ns)?;
                self.reply(wire, json!({}))
            }
            Request::Configure(configure) => self.configure(wire, configure),
            Request::Hold(request) => {
                let services = matches!(self.init, Init::Started(_));
                self.turn.hold(&configure::IDENTITY, services, request.limit_ms.map(Duration::from_millis))?;
                self.reply(wire, json!({}))
            }
            Request::Release => {
                self.turn.release();
                self.reply(wire, json!({}))
            }
            Request::Shutdown(shutdown) => self.shutdown(wire, &shutdown),
        }
    }

    pub(super) fn reply(&mut self, wire: u32, value: Value) -> Result<(), Failure> {
        self.answer(wire, &Outcome::Ok(value));
        Ok(())
    }

    fn start_process(&mut self, wire: u32, exec: &Exec) -> Result<(), Failure> {
        self.turn.command_begins();
        let Process { pid, terminal, sink, sources } = self.launcher.launch(exec)?;
        let mut stream = Stream::new(wire, Work::Process { pid, terminal });
        stream.sink = Some(sink);
        stream.sources = sources;
        let key = self.insert(wire, stream)?;
        self.by_pid.insert(pid, key);
        self.outbox.push(Kind::Opened, 0, wire, json!({"pid": pid}).to_string().as_bytes());
        Ok(())
    }

    fn start_connection(&mut self, wire: u32, dial: &Dial) -> Result<(), Failure> {
        let mut stream = Stream::new(wire, Work::Connection { connecting: true });
        stream.set_window(dial.window)?;
        let fd = dial::start(dial)?;
        let reader = fd.try_clone()?;
        let medium = if dial.udp { Medium::Datagrams } else { Medium::Socket };
        stream.sink = Some(Sink { fd, medium, watched: true });
        stream.sources[0] = Some(Source::new(reader, medium));
        self.insert(wire, stream)?;
        Ok(())
    }

    fn start_worker<J>(&mut self, wire: u32, takes_input: bool, job: J) -> Result<(), Failure>
    where
        J: FnOnce(&mut Desk) -> Result<Value, Failure> + Send + 'static,
    {
        let handle = worker::start(takes_input, job)?;
        let mut stream = Stream::new(wire, Work::Worker(handle.shared));
        stream.sink = handle.input.map(|fd| Sink { fd, medium: Medium::Pipe, watched: false });
        stream.sources[0] = Some(Source::new(handle.output, Medium::Pipe));
        self.insert(wire, stream)?;
        Ok(())
    }

    /// Puts a started stream into the table and watches its descriptors.
    pub(super) fn insert(&mut self, wire: u32, stream: Stream) -> io::Result<u64> {
        let key = self.next_key;
        for (slot, source) in stream.sources.iter().enumerate() {
            if let Some(source) = source {
                self.epoll.add(source.fd.as_fd(), libc::EPOLLIN | libc::EPOLLRDHUP, key << 2 | slot as u64)?;
            }
        }
        if let Some(sink) = stream.sink.as_ref().filter(|sink| sink.watched) {
            self.epoll.add(sink.fd.as_fd(), libc::EPOLLOUT, key << 2 | SLOT_SINK)?;
        }
        self.next_key += 1;
        self.streams.insert(key, stream);
        self.by_wire.insert(wire, key);
        Ok(key)
    }

    fn configure(&mut self, wire: u32, request: Box<Configure>) -> Result<(), Failure> {
        // What the host has asked for behind it is for that guest only.
        self.unconfigured = true;
        let first = self.init == Init::Waiting;
        let init = if first && request.start_init { self.boot.find_init() } else { None };
        if init.is_some() && !self.streams.is_empty() {
            return Err(Failure::new("EBUSY", "the init must be started before any other stream is open"));
        }
        self.turn.begin(request.crowd);
        configure::apply(&request, first)?;
        if let Some(env) = &request.env {
            self.launcher.defaults.clone_from(env);
        }
        let (tells, lazy) = (configure::tells_identity(&request), request.lazy);
        // What was told before and nobody has looked at comes first, or it would be written over this.
        self.turn.finish_files()?;
        // Who it is it will be told later.
        if tells || !lazy {
            self.turn.tell(Box::new(move |files| configure::write_identity(&request, files)), lazy)?;
        }
        if tells {
            self.turn.wait_for_command();
        }
        self.unconfigured = false;
        if !first {
            return self.reply(wire, json!({}));
        }
        match init {
            Some(path) => self.start_init(&path)?,
            None => self.stay_first_process(),
        }
        self.reply(wire, json!({}))?;
        self.announce_init();
        Ok(())
    }
}
