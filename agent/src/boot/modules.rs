//! Kernel modules of the initramfs.

use crate::console;
use crate::failure::Failure;
use crate::sys::check;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

const FOLDER: &str = "/modules";

/// Loads what `/modules/order` lists, in its order: file names, one a line. A kernel with everything built in has no such file.
///
/// A module that needs one further down the list is tried again after it. One that cannot be loaded at all is reported and passed
/// over: what needed it fails later, with a message of its own.
pub fn load_all() -> Result<(), Failure> {
    let order = match fs::read_to_string(format!("{FOLDER}/order")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(crate::failure::on(format!("{FOLDER}/order")))?,
    };
    let mut waiting: Vec<&str> = names(&order).collect();
    loop {
        let mut failed = Vec::new();
        for name in &waiting {
            if name.contains("vsock") && !has_vsock() {
                continue;
            }
            if let Err(error) = load(name) {
                failed.push((*name, error));
            }
        }
        if failed.is_empty() || failed.len() == waiting.len() {
            for (name, error) in failed {
                console::say(&format!("module {name}: {error}"));
            }
            return Ok(());
        }
        waiting = failed.into_iter().map(|(name, _)| name).collect();
    }
}

/// Whether the machine has a vsock device, by what the modules before it have found: QEMU's has none, and the modules take time.
fn has_vsock() -> bool {
    /// `VIRTIO_ID_VSOCK`
    const VSOCK: &str = "0x0013";
    let devices = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten();
    devices
        .map(|entry| entry.path().join("device"))
        .any(|path| fs::read_to_string(path).is_ok_and(|id| id.trim() == VSOCK))
}

/// The modules' files are of no more use and take memory.
pub fn remove_files() {
    if let Ok(entries) = fs::read_dir(FOLDER) {
        for entry in entries.flatten() {
            // Failing to free memory changes nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn names(order: &str) -> impl Iterator<Item = &str> {
    order.lines().map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#') && !name.contains('/'))
}

fn load(name: &str) -> io::Result<()> {
    let file = File::open(format!("{FOLDER}/{name}"))?;
    // SAFETY: a live descriptor and a NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match check(result as i32) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn order_is_kept_and_oddities_are_passed_over() {
        let order = "virtio.ko\n\n# comment\n virtio_ring.ko \n../evil.ko\nvirtio_mmio.ko";
        assert_eq!(super::names(order).collect::<Vec<_>>(), ["virtio.ko", "virtio_ring.ko", "virtio_mmio.ko"]);
    }
}
