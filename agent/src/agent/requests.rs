//! OPEN: what each operation starts.

use super::{Agent, Init, SLOT_SINK};
use crate::console::say;
use crate::failure::Failure;
use crate::frame::Kind;
use crate::identity::files::Files;
use crate::identity::hold::{Hold, Job};
use crate::identity::still::Still;
use crate::mux::stream::{Medium, Outcome, Sink, Source, Stream, Work};
use crate::ops::request::{Configure, Dial, Exec, Listeners, Request};
use crate::ops::worker::{self, Desk};
use crate::ops::{configure, dial, files, grow, listeners, metrics, tar_in, tar_out, transfer, whose};
use crate::process::launch::Process;
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Streams at once, those that are being ended included.
const STREAMS_MAX: usize = 8192;
/// How long the files of a clone's identity wait for a first look before they are written all the same: its first command comes first.
const IDENTITY_DELAY: Duration = Duration::from_millis(400);
/// How long both wait for a first command, and after its end: many clones at once take each other's time.
pub(super) const QUIET: Duration = Duration::from_secs(2);
/// How long the services of a clone stand still for a first command that does not end: it may be one that waits for them.
const STILL_LIMIT: Duration = Duration::from_millis(150);

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
        let nobody = self.unconfigured || self.hold.as_ref().is_some_and(Hold::has_failed);
        if nobody && !matches!(request, Request::Configure(_)) {
            return Err(Failure::new("EAGAIN", "the guest could not become who it is to be"));
        }
        if matches!(request, Request::Dial(_) | Request::Sync | Request::Shutdown(_)) {
            self.still = None;
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
                self.finish_identity()?;
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
                self.finish_identity()?;
                self.hold = Some(Hold::new(&configure::IDENTITY)?);
                // Of a clone that is copied before its services went on: letting go of the former would free what this one holds.
                (self.still, self.still_due) = (None, None);
                if matches!(self.init, Init::Started(_)) {
                    self.still = Still::new().map_err(|error| say(&format!("services go on: {error}"))).ok();
                }
                self.hold_due = request.limit_ms.map(|limit| Instant::now() + Duration::from_millis(limit));
                self.reply(wire, json!({}))
            }
            Request::Release => {
                self.release();
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
        self.pass_turn();
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
        self.hold_due = None;
        configure::apply(&request, first)?;
        if let Some(env) = &request.env {
            self.launcher.defaults.clone_from(env);
        }
        let told = configure::tells_identity(&request);
        self.write_identity(request)?;
        // One that does not know yet who it is has nobody whose command could come first.
        if told {
            self.had_turn = false;
            self.still_due = self.still.as_ref().map(|_| Instant::now() + QUIET);
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

    fn write_identity(&mut self, request: Box<Configure>) -> Result<(), Failure> {
        // What was told before and nobody has looked at comes first, or it would be written over this.
        self.finish_identity()?;
        let lazy = request.lazy;
        // Who it is it will be told later.
        if lazy && !configure::tells_identity(&request) {
            return Ok(());
        }
        let job: Job = Box::new(move |files| configure::write_identity(&request, files));
        let job = match &self.hold {
            Some(hold) => hold.tell(job),
            None => Some(job),
        };
        match job {
            Some(job) => job(&Files::default()),
            None if lazy => {
                self.identity_due = Some(Instant::now() + QUIET);
                Ok(())
            }
            None => self.finish_identity(),
        }
    }

    /// Writes who this guest is, where that waits for the first look.
    pub(super) fn finish_identity(&mut self) -> Result<(), Failure> {
        self.identity_due = None;
        self.hold.as_ref().map_or(Ok(()), Hold::finish)
    }

    /// Ends what `hold` began, in a guest that stays who it is.
    fn release(&mut self) {
        if self.hold_due.take().is_some() {
            if let Some(hold) = self.hold.take() {
                hold.let_go();
            }
            self.still = None;
        }
    }

    pub(super) fn pass_hold(&mut self) {
        if self.hold_due.is_some_and(|due| due <= Instant::now()) {
            self.release();
        }
    }

    /// A command is to run. A clone's services go on a moment after its first, and before any other.
    fn pass_turn(&mut self) {
        let now = Instant::now();
        self.identity_due = self.identity_due.map(|due| due.min(now + IDENTITY_DELAY));
        match self.still_due {
            Some(_) if self.had_turn => (self.still, self.still_due) = (None, None),
            Some(due) => self.still_due = Some(due.min(now + STILL_LIMIT)),
            None => return,
        }
        self.had_turn = true;
    }

    /// Lets the image's services go on when it is their turn.
    pub(super) fn pass_stillness(&mut self) {
        if self.still_due.is_some_and(|due| due <= Instant::now()) {
            (self.still, self.still_due) = (None, None);
        }
    }

    pub(super) fn pass_identity(&mut self) {
        if self.identity_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.identity_due = None;
        if let Some(Err(error)) = self.hold.as_ref().map(Hold::finish_aside) {
            // It is written at the first look, then.
            say(&format!("the guest's identity is not written yet: {error}"));
        }
    }
}
