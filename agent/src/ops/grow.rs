//! `grow`: the file system of the VM's disk takes the size that its device has now.

use crate::failure::{Failure, on};
use crate::sys::check;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::fd::AsRawFd;

/// `_IOW('f', 16, __u64)`: grow a mounted ext4 to so many blocks.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
/// Bytes of a sector in /sys/block.
const SECTOR: u64 = 512;

/// `disk` is the root folder of the VM's disk.
pub fn run(disk: Option<File>) -> Result<Value, Failure> {
    let disk = disk.ok_or_else(|| Failure::new("ENODEV", "the guest was not booted from a disk of its own"))?;
    let size = fs::read_to_string("/sys/class/block/vdb/size").map_err(on("the disk's size"))?;
    let sectors: u64 = size.trim().parse().map_err(|_| Failure::new("EIO", "the disk's size is not a number"))?;
    // SAFETY: an all-zero statfs is valid and the call fills it.
    let block = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(disk.as_raw_fd(), &mut found)).map_err(on("the disk"))?;
        found.f_bsize as u64
    };
    let blocks = sectors * SECTOR / block.max(1);
    // SAFETY: the ioctl reads one u64.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) }).map_err(on("grow the file system"))?;
    Ok(json!({"size": blocks * block}))
}
