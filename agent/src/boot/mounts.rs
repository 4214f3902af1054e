//! Pseudo file systems.

use crate::failure::Failure;
use crate::sys::{check, cpath, cstring};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// mount(2).
pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target, kind, data) = (cstring(source)?, cpath(target)?, cstring(kind)?, cstring(data)?);
    // SAFETY: all four are NUL-terminated and outlive the call.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    check(result).map(drop)
}

/// Makes a folder unless there is one, or a link to one.
pub fn make_folder(path: &str, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(_) if Path::new(path).is_dir() => Ok(()),
        other => other,
    }
}

/// What the agent itself needs before it can do anything: /proc, /sys, /dev and a console.
pub fn mount_early() -> Result<(), Failure> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount_at("proc", "/proc", "proc", flags, "")?;
    mount_at("sysfs", "/sys", "sysfs", flags, "")?;
    mount_at("devtmpfs", "/dev", "devtmpfs", libc::MS_NOSUID, "mode=0755")?;
    open_console();
    Ok(())
}

/// The rest of /dev and /run, below the new root at `root`.
pub fn mount_late(root: &str) -> Result<(), Failure> {
    let quiet = libc::MS_NOSUID | libc::MS_NODEV;
    let terminals = "gid=5,mode=620,ptmxmode=666";
    mount_at("devpts", &format!("{root}/dev/pts"), "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, terminals)?;
    mount_at("tmpfs", &format!("{root}/dev/shm"), "tmpfs", quiet, "mode=1777")?;
    mount_at("tmpfs", &format!("{root}/run"), "tmpfs", quiet, "mode=0755")?;
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        // There already: as good.
        let _ = std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), format!("{root}/dev/{name}"));
    }
    Ok(())
}

/// The unified hierarchy, for images without an init that would mount it.
pub fn mount_control_groups() {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // A kernel without control groups runs programs all the same.
    let _ = mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, "nsdelegate");
}

pub fn mount_at(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> Result<(), Failure> {
    make_folder(target, 0o755).map_err(|error| Failure::io(format!("mkdir {target}"), &error))?;
    match mount(source, target, kind, flags, data) {
        // Mounted by the kernel already (CONFIG_DEVTMPFS_MOUNT).
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other.map_err(|error| Failure::io(format!("mount {kind} at {target}"), &error)),
    }
}

/// Standard input and output on the console. The kernel opens them only when the initramfs brings a /dev/console.
fn open_console() {
    for path in ["/dev/console", "/dev/null"] {
        let Ok(console) = OpenOptions::new().read(true).write(true).open(path) else {
            continue;
        };
        for fd in 0..3 {
            // SAFETY: plain dup2 of a live descriptor; nothing owns 0 to 2.
            unsafe { libc::dup2(console.as_raw_fd(), fd) };
        }
        if console.as_raw_fd() < 3 {
            // It is one of the three itself now.
            std::mem::forget(console);
        }
        return;
    }
}
