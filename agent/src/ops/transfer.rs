//! `read` and `write`: the contents of one file.

use super::request::{Read, Write};
use super::worker::Desk;
use crate::failure::{Failure, on};
use crate::sys::{self, check};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Bytes moved at once.
const CHUNK: usize = 256 * 1024;
/// Mode of a written file, unless the request has one.
const FILE_MODE: u32 = 0o644;

pub fn read(desk: &mut Desk, request: &Read) -> Result<Value, Failure> {
    let subject = || on(&request.path);
    // Not to wait for a writer where the path is a fifo.
    let mut file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&request.path).map_err(subject())?;
    let metadata = file.metadata().map_err(subject())?;
    if metadata.is_dir() {
        return Err(Failure::new("EISDIR", format!("{}: is a folder", request.path)));
    }
    if request.offset > 0 {
        file.seek(SeekFrom::Start(request.offset)).map_err(subject())?;
    }
    let mut left = request.length.unwrap_or(u64::MAX);
    while left > 0 {
        desk.check_cancelled()?;
        let moved = send(&mut file, &mut desk.output, left.min(CHUNK as u64) as usize).map_err(subject())?;
        if moved == 0 {
            break;
        }
        left -= moved as u64;
    }
    Ok(json!({"size": metadata.size(), "mode": metadata.mode() & 0o7777}))
}

/// Moves up to `want` bytes from a file into a pipe without copying them, where the file can do that; 0 at its end.
pub fn send(file: &mut File, pipe: &mut File, want: usize) -> io::Result<usize> {
    match sys::splice(file.as_fd(), pipe.as_fd(), want) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        other => return other,
    }
    // Files of /proc and the like cannot be spliced.
    let mut buffer = vec![0; want.min(64 * 1024)];
    let count = file.read(&mut buffer)?;
    pipe.write_all(&buffer[..count])?;
    Ok(count)
}

pub fn write(desk: &mut Desk, request: &Write) -> Result<Value, Failure> {
    let target = resolve_target(&request.path);
    if request.parents
        && let Some(parent) = target.parent()
    {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(on(parent.display()))?;
    }
    match fs::metadata(&target) {
        Ok(metadata) if metadata.is_dir() => Err(Failure::new("EISDIR", format!("{}: is a folder", request.path))),
        // A device or fifo is written to; putting a file in its place would break the guest.
        Ok(metadata) if !metadata.is_file() => {
            let mut device = OpenOptions::new().write(true).open(&target).map_err(on(&request.path))?;
            let size = receive(desk, &mut device).map_err(on(&request.path))?;
            Ok(json!({"size": size}))
        }
        _ => write_file(desk, request, &target),
    }
}

/// A link to an existing file is followed, so that the link stays.
fn resolve_target(path: &str) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn write_file(desk: &mut Desk, request: &Write, target: &Path) -> Result<Value, Failure> {
    let temporary = Temporary::create(target).map_err(on(&request.path))?;
    let fill = |desk: &mut Desk| -> io::Result<u64> {
        let size = receive(desk, &mut &temporary.file)?;
        if request.uid.is_some() || request.gid.is_some() {
            fchown(&temporary.file, request.uid, request.gid)?;
        }
        // After the owner: changing that clears setuid.
        temporary.file.set_permissions(Permissions::from_mode(request.mode.unwrap_or(FILE_MODE) & 0o7777))?;
        Ok(size)
    };
    let size = fill(desk).map_err(on(&request.path))?;
    if let Some(expected) = request.size.filter(|expected| *expected != size) {
        let message = format!("{}: {size} bytes came instead of {expected}", request.path);
        return Err(Failure::new("EPIPE", message));
    }
    temporary.publish(target).map_err(on(&request.path))?;
    Ok(json!({"size": size}))
}

/// Through our memory: splicing from the pipe into the file measured no faster, and pins the pages that the file then keeps.
fn receive(desk: &mut Desk, file: &mut impl io::Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut size: u64 = 0;
    loop {
        let count = desk.input.read(&mut buffer)?;
        if count == 0 {
            return Ok(size);
        }
        file.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

/// A file beside its target, removed unless it is published.
struct Temporary {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn create(target: &Path) -> io::Result<Temporary> {
        let folder = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut random = [0; 8];
        sys::random(&mut random)?;
        let path = folder.join(format!(".banger-{:016x}", u64::from_ne_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { file, path, published: false })
    }

    fn publish(mut self, target: &Path) -> io::Result<()> {
        let (from, to) = (sys::cpath(&self.path)?, sys::cpath(target)?);
        // SAFETY: both are NUL-terminated and outlive the call.
        check(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) })?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now, nobody else knows of either.
            let _ = fs::remove_file(&self.path);
        }
    }
}
