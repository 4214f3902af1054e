//! The hand-over to the image's own init, and what it tells us afterwards.

use super::{Agent, Init};
use crate::boot::{self, handover};
use crate::failure::Failure;
use crate::sys::{self, Epoll};
use serde_json::json;
use std::os::fd::AsFd;

impl Agent {
    /// Process 1 becomes `path`; the agent goes on in a child. Returns in the child only.
    pub(super) fn start_init(&mut self, path: &str) -> Result<(), Failure> {
        let notify = handover::notify_socket()?;
        handover::fork_init(path)?;
        // The old epoll instance and signalfd belong to the process that is the init now.
        self.epoll = Epoll::new()?;
        self.children = sys::child_signals()?;
        self.notify = Some(notify);
        self.boot.first_process = false;
        (self.readable, self.writable) = (true, true);
        self.watch_all()?;
        boot::settle();
        self.init = Init::Started(path.into());
        Ok(())
    }

    pub(super) fn stay_first_process(&mut self) {
        if self.boot.first_process {
            boot::mounts::mount_control_groups();
            boot::settle();
        }
        self.init = Init::None;
    }

    /// Tells the host what to expect of the init.
    pub(super) fn announce_init(&mut self) {
        match &self.init {
            Init::None => self.event(&json!({"event": "init", "state": "none"})),
            Init::Started(path) if !handover::is_systemd(path) => {
                self.event(&json!({"event": "init", "state": "started"}));
            }
            _ => {}
        }
    }

    /// Messages that systemd sends to $NOTIFY_SOCKET.
    pub(super) fn read_notifications(&mut self) {
        let mut message = [0; 4096];
        loop {
            let Some(notify) = &self.notify else { return };
            let Ok(count) = sys::read(notify.as_fd(), &mut message) else {
                return;
            };
            for line in message[..count].split(|byte| *byte == b'\n') {
                match line {
                    b"READY=1" => self.event(&json!({"event": "init", "state": "ready"})),
                    b"STOPPING=1" => self.event(&json!({"event": "shutdown"})),
                    _ => {}
                }
            }
        }
    }
}
