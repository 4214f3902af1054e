//! Machine id and boot id.

use super::files::Files;
use crate::boot::mounts::mount;
use crate::failure::{Failure, on};
use crate::sys::cstring;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Lies over the kernel's file. In /run, so that it does not outlive the boot.
pub const OUR_BOOT_ID: &str = "/run/banger-boot-id";
pub const MACHINE_ID: &str = "/etc/machine-id";

/// The boot id that was set last.
static BOOT_ID: Mutex<Option<String>> = Mutex::new(None);

pub fn check_machine_id(id: &str) -> Result<(), Failure> {
    if id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Failure::new("EINVAL", "machine_id is not 32 lower-case hex digits"))
}

/// Writes /etc/machine-id as systemd wants it: 32 hex digits and a line end, read-only.
pub fn set_machine_id(id: &str, files: &Files) -> Result<(), Failure> {
    // systemd may have mounted a file over it when the image had none.
    let target = cstring(MACHINE_ID)?;
    // SAFETY: the path is NUL-terminated. No mount there is the usual case.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    files.put(Path::new(MACHINE_ID), format!("{id}\n").as_bytes(), 0o444).map_err(on(MACHINE_ID))
}

pub fn check_boot_id(id: &str) -> Result<(), Failure> {
    let shape = |(at, byte): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    if id.len() == 36 && id.bytes().enumerate().all(shape) {
        return Ok(());
    }
    Err(Failure::new("EINVAL", "boot_id is not a UUID"))
}

/// The boot id as programs see it.
pub fn boot_id() -> String {
    let mut known = BOOT_ID.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || std::fs::read_to_string(KERNEL_BOOT_ID).unwrap_or_default().trim_end().to_string();
    known.get_or_insert_with(read).clone()
}

/// Gives a restored guest a boot id of its own. The kernel's cannot be set, so a file is mounted over it.
pub fn set_boot_id(id: &str, files: &Files) -> Result<(), Failure> {
    let mut known = BOOT_ID.lock().unwrap_or_else(PoisonError::into_inner);
    files.put(Path::new(OUR_BOOT_ID), format!("{id}\n").as_bytes(), 0o444).map_err(on(OUR_BOOT_ID))?;
    // What was mounted for an earlier restore, or for the template, shows the new contents. A look at it would wait for ourselves where it is held.
    let mounted = files.paths().any(|path| path == Path::new(OUR_BOOT_ID))
        || std::fs::read_to_string(KERNEL_BOOT_ID).is_ok_and(|text| text.trim_end() == id);
    if !mounted {
        mount(OUR_BOOT_ID, KERNEL_BOOT_ID, "", libc::MS_BIND, "").map_err(on(KERNEL_BOOT_ID))?;
    }
    *known = Some(id.to_string());
    Ok(())
}
