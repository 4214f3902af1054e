//! `grow`: the file system of the VM's disk takes the size that its device has now.

use crate::boot::uevent::Uevents;
use crate::boot::wait_for;
use crate::failure::{Failure, on};
use crate::ops::request::Grow;
use crate::sys::check;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

/// `_IOW('f', 16, __u64)`: grow a mounted ext4 to so many blocks.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
/// Bytes of a sector in /sys/block.
const SECTOR: u64 = 512;

/// `disk` is the root folder of the VM's disk.
pub fn run(disk: Option<File>, request: &Grow) -> Result<Value, Failure> {
    let disk = disk.ok_or_else(|| Failure::new("ENODEV", "the guest was not booted from a disk of its own"))?;
    let wanted = request.size.unwrap_or(0);
    // The kernel hears of the new size a moment after the host has set it.
    let uevents = Uevents::open()?;
    wait_for(&uevents, "the disk's new size", || Ok((device_size()? >= wanted).then_some(())))?;
    Ok(json!({"size": to_device(&disk)?}))
}

fn device_size() -> io::Result<u64> {
    let size = fs::read_to_string("/sys/class/block/vdb/size")?;
    let sectors: u64 = size.trim().parse().map_err(|_| io::Error::from_raw_os_error(libc::EIO))?;
    Ok(sectors * SECTOR)
}

/// Grows the file system that `disk` is a folder of to its device. Returns its size in bytes. One that fills its device is left alone.
pub fn to_device(disk: &File) -> Result<u64, Failure> {
    // SAFETY: an all-zero statfs is valid and the call fills it.
    let block = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(disk.as_raw_fd(), &mut found)).map_err(on("the disk"))?;
        found.f_bsize as u64
    };
    let blocks = device_size().map_err(on("the disk's size"))? / block.max(1);
    // SAFETY: the ioctl reads one u64.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) }).map_err(on("grow the file system"))?;
    Ok(blocks * block)
}
