//! The agent as `/init` of the initramfs: from the kernel's hand-over to the image's root with an open channel.

pub mod handover;
pub mod modules;
pub mod mounts;
pub mod power;
pub mod root;
pub mod uevent;

use crate::channel::{self, Channel};
use crate::failure::Failure;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use uevent::Uevents;

/// How long a device of the VM may take to appear. Under emulation on a busy host seconds are normal.
const DEVICE_LIMIT: Duration = Duration::from_secs(60);

/// What booting leaves behind for the rest of the agent's life.
#[derive(Default)]
pub struct Booted {
    /// The root folder of the VM's own disk, which the running system cannot reach by path.
    pub disk: Option<File>,
    /// The agent is process 1.
    pub first_process: bool,
}

impl Booted {
    /// The init that the image brings.
    pub fn find_init(&self) -> Option<String> {
        let candidates = ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
        let found = candidates.into_iter().find(|path| self.first_process && Path::new(path).is_file());
        found.map(str::to_string)
    }
}

/// Brings the guest up to the point where the host can speak to it.
pub fn boot() -> Result<(Channel, Booted), Failure> {
    mounts::mount_early()?;
    let uevents = Uevents::open()?;
    modules::load_all()?;
    let disk = root::assemble(&uevents)?;
    let channel = wait_for(&uevents, "the virtio port banger.agent, or vsock", channel::find)?;
    root::switch()?;
    Ok((channel, Booted { disk: Some(disk), first_process: true }))
}

/// Calls `find` until it finds something: now, and again after each event of the kernel's device model.
pub fn wait_for<T>(
    uevents: &Uevents,
    what: &str,
    mut find: impl FnMut() -> std::io::Result<Option<T>>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + DEVICE_LIMIT;
    loop {
        if let Some(found) = find().map_err(|error| Failure::io(what, &error))? {
            return Ok(found);
        }
        if !uevents.wait(deadline)? {
            let seconds = DEVICE_LIMIT.as_secs();
            return Err(Failure::new("ENODEV", format!("{what} did not appear within {seconds} s")));
        }
    }
}

/// Settings of the process that stays the agent: last to be killed for want of memory, and room for many streams.
pub fn settle() {
    // Both are improvements only: a kernel without them serves as well.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let limit = libc::rlimit { rlim_cur: 524_288, rlim_max: 524_288 };
    // SAFETY: the structure outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}
