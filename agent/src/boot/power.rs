//! The end of the guest.

use super::mounts::mount;
use crate::sys;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone. One that hangs in the kernel must not keep the guest up.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks at them, in ms.
const KILL_PAUSE_MS: i32 = 5;

/// Ends all processes, writes everything out and stops the machine. Only as process 1.
pub fn stop(reboot: bool, disk: Option<&File>) -> ! {
    // Nobody to kill is fine.
    let _ = sys::kill(-1, libc::SIGKILL);
    let deadline = Instant::now() + KILL_LIMIT;
    // SAFETY: no status is asked for; poll without descriptors only waits.
    unsafe {
        loop {
            match libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) {
                0 if Instant::now() < deadline => {
                    libc::poll(std::ptr::null_mut(), 0, KILL_PAUSE_MS);
                }
                pid if pid > 0 => {}
                _ => break,
            }
        }
        libc::sync();
    }
    // All is written; a clean mark on the disk only spares the next boot its journal.
    let _ = mount("", "/", "", libc::MS_REMOUNT | libc::MS_RDONLY, "");
    if let Some(disk) = disk {
        let path = format!("/proc/self/fd/{}", disk.as_raw_fd());
        let _ = mount("", &path, "", libc::MS_REMOUNT | libc::MS_RDONLY, "");
    }
    halt(reboot)
}

/// Stops the machine as it is.
pub fn halt(reboot: bool) -> ! {
    let how = if reboot { libc::RB_AUTOBOOT } else { libc::RB_POWER_OFF };
    // SAFETY: does not return as process 1; where the machine cannot be switched off, a reboot ends it (QEMU's -no-reboot).
    unsafe {
        libc::sync();
        libc::reboot(how);
        libc::reboot(libc::RB_AUTOBOOT);
        libc::_exit(1)
    }
}
