//! The `shutdown` operation: through the image's init, or by ourselves when there is none.

use super::{Agent, Init};
use crate::boot::{self, handover};
use crate::failure::Failure;
use crate::ops::request::{Shutdown, ShutdownMode};
use crate::sys;
use serde_json::json;
use std::time::{Duration, Instant};

/// Time between SIGTERM and SIGKILL without an init, unless the request says otherwise.
const GRACE_MS: u64 = 2000;
/// The most a request may ask for.
const GRACE_MAX_MS: u64 = 600_000;

/// Without an init: processes have been asked to end.
pub struct Stopping {
    pub deadline: Instant,
    mode: ShutdownMode,
}

impl Agent {
    pub(super) fn shutdown(&mut self, wire: u32, request: &Shutdown) -> Result<(), Failure> {
        self.turn.finish_files()?;
        // SAFETY: takes and returns nothing.
        unsafe { libc::sync() };
        match &self.init {
            Init::Started(path) => {
                sys::kill(1, handover::stop_signal(path, request.mode == ShutdownMode::Reboot))?;
                self.event(&json!({"event": "shutdown"}));
            }
            _ if !self.boot.first_process => {
                return Err(Failure::new("EPERM", "the agent is not the guest's first process"));
            }
            _ => {
                self.event(&json!({"event": "shutdown"}));
                // Nobody there to receive it is fine. SIGCONT lets stopped processes act on it.
                let _ = sys::kill(-1, libc::SIGTERM);
                let _ = sys::kill(-1, libc::SIGCONT);
                let grace = Duration::from_millis(request.grace_ms.unwrap_or(GRACE_MS).min(GRACE_MAX_MS));
                self.stopping = Some(Stopping { deadline: Instant::now() + grace, mode: request.mode });
                self.reap();
            }
        }
        self.reply(wire, json!({}))
    }

    /// Goes on with a shutdown once nobody is left and the host has been told how they ended, or their time is over.
    pub(super) fn pass_stopping(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let told = self.queue.is_empty() && self.outbox.is_empty();
        if self.all_children_gone && told || stopping.deadline <= Instant::now() {
            boot::power::stop(stopping.mode == ShutdownMode::Reboot, self.boot.disk.as_ref());
        }
    }
}
