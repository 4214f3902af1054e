//! A root of its own for a VMM: an empty file system that holds what the VMM is given, each at the path that it has outside, and nothing else. No
//! `/proc`, no home, no file of another VM.

use crate::sys::{self, check, named, own, path_of};
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What every VMM may use, where it is there.
const DEVICES: [&CStr; 4] = [c"/dev/kvm", c"/dev/net/tun", c"/dev/null", c"/dev/urandom"];
/// Room for the names in it; what is mounted counts elsewhere.
const ROOT_OPTIONS: &CStr = c"mode=0755,size=256k,nr_inodes=1024";

/// Paths, absolute; folders with all that is in them.
pub struct View<'a> {
    pub read: Vec<&'a CStr>,
    pub write: Vec<&'a CStr>,
}

/// A copy of a mount that hangs nowhere yet.
struct Tree {
    mount: OwnedFd,
    folder: bool,
    path: PathBuf,
    flags: libc::c_ulong,
}

/// Replaces the root of this process, which has a mount namespace of its own and the rights to change it. The working folder stays: it must be
/// in the view.
pub fn enter(view: &View) -> io::Result<()> {
    let folder = std::env::current_dir()?;
    let place = sys::cpath(&folder)?;
    named("mounts of its own", mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None))?;
    // Taken before the new root hides what lies below it.
    let mut trees = Vec::new();
    for path in &view.read {
        trees.push(tree(path, libc::MS_RDONLY | libc::MS_NODEV)?);
    }
    for path in &view.write {
        trees.push(tree(path, libc::MS_NODEV)?);
    }
    for device in DEVICES {
        if fs::exists(path_of(device)).unwrap_or(false) {
            trees.push(tree(device, libc::MS_NOEXEC)?);
        }
    }
    let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    named("root of its own", mount(Some(c"none"), &place, Some(c"tmpfs"), plain, Some(ROOT_OPTIONS)))?;
    std::env::set_current_dir(&folder)?;
    for tree in &trees {
        hang(tree).map_err(|error| Error::new(error.kind(), format!("{}: {error}", tree.path.display())))?;
    }
    // The old root is put over the new one, and taken away there.
    // SAFETY: the strings are NUL-terminated constants.
    unsafe {
        named("pivot_root", check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32))?;
        named("leaving the host's root", check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)))?;
    }
    std::env::set_current_dir("/")?;
    named(
        "root that stays as it is",
        mount(None, c"/", None, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | plain, None),
    )?;
    std::env::set_current_dir(&folder)
}

fn tree(text: &CStr, flags: libc::c_ulong) -> io::Result<Tree> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = path_of(text).to_path_buf();
    let flag = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is NUL-terminated and outlives the call.
    let opened = own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, text.as_ptr(), flag) } as i32);
    let mount = named(&path.display().to_string(), opened)?;
    // SAFETY: an all-zero stat is valid, and written by the call.
    let folder = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        check(libc::fstat(mount.as_raw_fd(), &mut found))?;
        found.st_mode & libc::S_IFMT == libc::S_IFDIR
    };
    Ok(Tree { mount, folder, path, flags: flags | libc::MS_NOSUID })
}

/// Into the new root, which is the working folder.
fn hang(tree: &Tree) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let place = Path::new(".").join(tree.path.strip_prefix("/").unwrap_or(&tree.path));
    // It may be part of a folder that hangs there already.
    if tree.folder {
        fs::create_dir_all(&place)?;
    } else if !fs::exists(&place)? {
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::File::create_new(&place)?;
    }
    let target = sys::cpath(&place)?;
    // SAFETY: live descriptors; the strings are NUL-terminated and outlive the call.
    unsafe {
        check(libc::syscall(
            libc::SYS_move_mount,
            tree.mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        ) as i32)?;
    }
    let flags = libc::MS_REMOUNT | libc::MS_BIND | tree.flags | kept_flags(&target)?;
    mount(None, &target, None, flags, None)
}

/// What a mount of the host's was given must be given again: nobody may take it away in a namespace of users.
fn kept_flags(path: &CString) -> io::Result<libc::c_ulong> {
    // SAFETY: an all-zero statvfs is valid; path and result outlive the call.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &mut found))?;
        found.f_flag
    };
    let same =
        libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC | libc::ST_NOATIME | libc::ST_NODIRATIME;
    Ok(found & same | if found & libc::ST_RELATIME != 0 { libc::MS_RELATIME } else { 0 })
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings are NUL-terminated and outlive the call; the others are null.
    check(unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast()) })
        .map(drop)
}
