//! The root file system: the image below, the VM's own disk above, joined by an overlay.

use super::mounts::{make_folder, mount, mount_at, mount_late};
use super::{modules, uevent::Uevents, wait_for};
use crate::console;
use crate::failure::{Failure, on};
use crate::ops::grow;
use crate::sys::check;
use std::fs::{self, File};
use std::path::Path;

/// The image, shared by all its VMs.
const IMAGE_DEVICE: &str = "/dev/vda";
/// The VM's own disk.
const DISK_DEVICE: &str = "/dev/vdb";
/// Kernel modules, when the kernel has any beyond those of the initramfs.
const MODULES_DEVICE: &str = "/dev/vdc";

const LOWER: &str = "/lower";
const DISK: &str = "/disk";
const ROOT: &str = "/root.new";

/// Folders that must not be on an overlay, because those who use them lay overlays of their own there, and their place on the disk.
const PLAIN_FOLDERS: [(&str, &str); 2] = [("/var/lib/docker", "docker"), ("/var/lib/containerd", "containerd")];

/// Mounts everything at `ROOT`. Returns the root folder of the VM's disk.
pub fn assemble(uevents: &Uevents) -> Result<File, Failure> {
    for device in [IMAGE_DEVICE, DISK_DEVICE] {
        wait_for(uevents, device, || Ok(Path::new(device).exists().then_some(())))?;
    }
    mount_at(IMAGE_DEVICE, LOWER, "ext4", libc::MS_RDONLY, "")?;
    // Its inode tables are zeros, for the disk was a hole: each VM, and each clone anew, would have the kernel write them again.
    mount_at(DISK_DEVICE, DISK, "ext4", libc::MS_NOATIME, "noinit_itable")?;
    let disk = File::open(DISK).map_err(on(DISK))?;
    // It may have been set to a larger size while the VM was stopped. Less room than there could be is no reason not to boot.
    if let Err(failure) = grow::to_device(&disk) {
        console::say(&format!("the disk did not grow: {}", failure.message));
    }
    let (upper, work) = (format!("{DISK}/upper"), format!("{DISK}/work"));
    // The root folder of the running system is this one.
    make_folder(&upper, 0o755).map_err(on(&upper))?;
    make_folder(&work, 0o700).map_err(on(&work))?;
    make_folder(ROOT, 0o755).map_err(on(ROOT))?;
    mount("overlay", ROOT, "overlay", 0, &format!("lowerdir={LOWER},upperdir={upper},workdir={work}"))
        .map_err(on("mount overlay"))?;
    bind_plain_folders();
    mount_modules()?;
    Ok(disk)
}

/// Also where the image does not have them yet: the program may be installed later. Failures cost a feature, not the boot.
fn bind_plain_folders() {
    if !fs::symlink_metadata(format!("{ROOT}/var/lib")).is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    for (path, name) in PLAIN_FOLDERS {
        let (source, target) = (format!("{DISK}/{name}"), format!("{ROOT}{path}"));
        let bound = make_folder(&source, 0o711)
            .and_then(|()| make_folder(&target, 0o711))
            .and_then(|()| mount(&source, &target, "", libc::MS_BIND, ""));
        if let Err(error) = bound {
            console::say(&format!("bind {path}: {error}"));
        }
    }
}

fn mount_modules() -> Result<(), Failure> {
    if !Path::new(MODULES_DEVICE).exists() {
        return Ok(());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(on("kernel release"))?;
    // In an image with merged /usr, /lib is a link, which is not followed here: its target may be absolute.
    let merged = fs::symlink_metadata(format!("{ROOT}/lib")).is_ok_and(|metadata| metadata.is_symlink());
    let lib = if merged { "/usr/lib" } else { "/lib" };
    for folder in [lib.to_string(), format!("{lib}/modules")] {
        make_folder(&format!("{ROOT}{folder}"), 0o755).map_err(on(&folder))?;
    }
    let target = format!("{ROOT}{lib}/modules/{}", release.trim_end());
    mount_at(MODULES_DEVICE, &target, "ext4", libc::MS_RDONLY, "")
}

/// Makes `ROOT` the root and frees what the initramfs has in memory.
pub fn switch() -> Result<(), Failure> {
    for folder in ["/proc", "/sys", "/dev"] {
        let target = format!("{ROOT}{folder}");
        make_folder(&target, 0o755).map_err(on(&target))?;
        mount(folder, &target, "", libc::MS_MOVE, "").map_err(on(format!("move {folder}")))?;
    }
    mount_late(ROOT)?;
    modules::remove_files();
    // The running program keeps its own file alive.
    let _ = fs::remove_file("/init");
    std::env::set_current_dir(ROOT).map_err(on(ROOT))?;
    mount(".", "/", "", libc::MS_MOVE, "").map_err(on("move the root"))?;
    // SAFETY: constant path.
    check(unsafe { libc::chroot(c".".as_ptr()) }).map_err(on("chroot"))?;
    std::env::set_current_dir("/").map_err(on("/"))
}
