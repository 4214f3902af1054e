//! Creating files below one folder and nowhere else.
//!
//! Every path is resolved by the kernel (openat2) relative to the folder, so that neither `..` nor a link that the archive has planted leads out of it.

use crate::sys::{self, check, cpath, own};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, fchown};
use std::path::{Component, Path, PathBuf};

/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;
/// Bytes of a page: where a sparse file has a whole one of zeros, it gets a hole.
const PAGE: usize = 4096;

/// Owner, mode and times of an entry.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Permission bits, setuid and the like included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// s and ns since 1970.
    pub mtime: (i64, i64),
}

/// What is neither file nor folder.
pub enum Node<'a> {
    Symlink(&'a Path),
    /// Type bits of mknod(2), and the device.
    Special(libc::mode_t, libc::dev_t),
}

pub struct Tree {
    root: OwnedFd,
    /// `RESOLVE_` flags of openat2.
    resolve: u64,
    privileged: bool,
}

impl Tree {
    /// Opens the folder, and makes it if it is not there.
    pub fn open(path: &Path) -> io::Result<Tree> {
        fs::create_dir_all(path)?;
        let real = fs::canonicalize(path)?;
        let cpath = cpath(&real)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated; geteuid cannot fail.
        let (root, privileged) = unsafe { (own(libc::open(cpath.as_ptr(), flags))?, libc::geteuid() == 0) };
        // Below "/" absolute links are at home. Elsewhere one would silently mean another place than its author thought.
        let scope = if real == Path::new("/") { libc::RESOLVE_IN_ROOT } else { libc::RESOLVE_BENEATH };
        Ok(Tree { root, resolve: scope | libc::RESOLVE_NO_MAGICLINKS, privileged })
    }

    /// The path of an entry relative to the folder; one with `..` is refused.
    pub fn relative(path: &Path) -> io::Result<PathBuf> {
        let mut relative = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::RootDir | Component::CurDir => {}
                _ => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the path leads out of the folder"));
                }
            }
        }
        Ok(relative)
    }

    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if make_folder_at(&parent, &name)? || self.open_folder(path).is_ok() {
            return Ok(());
        }
        self.remove(&parent, &name)?;
        make_folder_at(&parent, &name).map(drop)
    }

    /// Writes a file from `contents`, whole or not at all; with `sparse`, pages of zeros become holes. Returns its size in bytes.
    pub fn write_file(
        &self,
        path: &Path,
        contents: &mut impl Read,
        sparse: bool,
        attributes: &Attributes,
    ) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        let mut random = [0; 8];
        sys::random(&mut random)?;
        let part = CString::new(format!(".banger-{:016x}", u64::from_ne_bytes(random)))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the name is NUL-terminated.
        let file = File::from(own(unsafe { libc::openat(parent.as_raw_fd(), part.as_ptr(), flags, 0o600) })?);
        let published = self
            .fill(file, contents, sparse, attributes)
            .and_then(|size| self.put_in_place(&parent, &part, &name).map(|()| size));
        if published.is_err() {
            // The first error says more than one from here.
            let _ = self.remove(&parent, &part);
        }
        published
    }

    fn fill(&self, mut file: File, contents: &mut impl Read, sparse: bool, attributes: &Attributes) -> io::Result<u64> {
        let size = if sparse { copy_sparse(contents, &file)? } else { copy(contents, &mut file)? };
        if self.privileged {
            fchown(&file, Some(attributes.uid), Some(attributes.gid))?;
        }
        let times = times(attributes);
        // SAFETY: a live descriptor and two live timespecs. The mode comes after the owner, whose change clears setuid.
        unsafe {
            check(libc::fchmod(file.as_raw_fd(), attributes.mode))?;
            check(libc::futimens(file.as_raw_fd(), times.as_ptr()))?;
        }
        Ok(size)
    }

    /// Gives a finished file its name. What had the name goes in the same moment; only an empty folder goes before.
    fn put_in_place(&self, parent: &OwnedFd, part: &CString, name: &CString) -> io::Result<()> {
        let at = parent.as_raw_fd();
        // SAFETY: both names are NUL-terminated.
        let rename = || check(unsafe { libc::renameat(at, part.as_ptr(), at, name.as_ptr()) }).map(drop);
        match rename() {
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                self.remove(parent, name)?;
                rename()
            }
            other => other,
        }
    }

    pub fn make_node(&self, path: &Path, node: &Node, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.remove(&parent, &name)?;
        let at = parent.as_raw_fd();
        match node {
            Node::Symlink(target) => {
                let target = cpath(target)?;
                // SAFETY: both strings are NUL-terminated.
                check(unsafe { libc::symlinkat(target.as_ptr(), at, name.as_ptr()) })?;
            }
            Node::Special(kind, device) => {
                // SAFETY: the name is NUL-terminated.
                check(unsafe { libc::mknodat(at, name.as_ptr(), kind | 0o600, *device) })?;
            }
        }
        self.own_at(at, &name, attributes)?;
        if matches!(node, Node::Special(..)) {
            // SAFETY: the name is NUL-terminated; it is what was made above.
            check(unsafe { libc::fchmodat(at, name.as_ptr(), attributes.mode, 0) })?;
        }
        set_times_at(at, &name, attributes)
    }

    /// Makes `path` another name of `target`, which the archive has unpacked before.
    pub fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (from, from_name) = self.parent(target)?;
        let (to, to_name) = self.parent(path)?;
        if path != target {
            self.remove(&to, &to_name)?;
        }
        // SAFETY: both names are NUL-terminated. Without AT_SYMLINK_FOLLOW a link is linked itself.
        let made = unsafe { libc::linkat(from.as_raw_fd(), from_name.as_ptr(), to.as_raw_fd(), to_name.as_ptr(), 0) };
        match check(made) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && path == target => Ok(()),
            other => other.map(drop),
        }
    }

    /// For folders, after all below them is done. One that a later entry has replaced is left alone.
    pub fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the name is NUL-terminated.
        let folder = match own(unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags) }) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP | libc::ENOENT)) => {
                return Ok(());
            }
            other => other?,
        };
        if self.privileged {
            fchown(&folder, Some(attributes.uid), Some(attributes.gid))?;
        }
        let times = times(attributes);
        // SAFETY: a live descriptor and two live timespecs.
        unsafe {
            check(libc::fchmod(folder.as_raw_fd(), attributes.mode))?;
            check(libc::futimens(folder.as_raw_fd(), times.as_ptr())).map(drop)
        }
    }

    /// The folder that `path` is in, made if necessary, and its last name.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, CString)> {
        let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let opened = match self.open_folder(folder) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.make_parents(folder)?,
            other => other?,
        };
        Ok((opened, cpath(name)?))
    }

    fn make_parents(&self, folder: &Path) -> io::Result<OwnedFd> {
        let mut path = PathBuf::new();
        let mut opened = self.open_folder(&path)?;
        for name in folder.components() {
            path.push(name);
            make_folder_at(&opened, &cpath(name)?)?;
            opened = self.open_folder(&path)?;
        }
        Ok(opened)
    }

    fn open_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = cpath(path)?;
        // SAFETY: an all-zero open_how is valid.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
        how.resolve = self.resolve;
        // SAFETY: the path is NUL-terminated and `how` has the size that is passed.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, self.root.as_raw_fd(), path.as_ptr(), &how, size_of::<libc::open_how>())
        };
        own(fd as RawFd)
    }

    /// Takes away what is in the place of a new entry. A folder with contents stays, and is an error.
    fn remove(&self, parent: &OwnedFd, name: &CString) -> io::Result<()> {
        // SAFETY: the name is NUL-terminated.
        let removed = unsafe {
            check(libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), 0)).or_else(|error| match error.raw_os_error() {
                Some(libc::EISDIR) => check(libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR)),
                _ => Err(error),
            })
        };
        match removed {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    fn own_at(&self, at: RawFd, name: &CString, attributes: &Attributes) -> io::Result<()> {
        if !self.privileged {
            return Ok(());
        }
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: the name is NUL-terminated.
        check(unsafe { libc::fchownat(at, name.as_ptr(), attributes.uid, attributes.gid, flags) }).map(drop)
    }
}

/// False when something is there already.
fn make_folder_at(parent: &OwnedFd, name: &CString) -> io::Result<bool> {
    // SAFETY: the name is NUL-terminated.
    match check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755) }) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        other => other.map(|_| true),
    }
}

fn times(attributes: &Attributes) -> [libc::timespec; 2] {
    let mtime = libc::timespec { tv_sec: attributes.mtime.0, tv_nsec: attributes.mtime.1 };
    [libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }, mtime]
}

fn set_times_at(at: RawFd, name: &CString, attributes: &Attributes) -> io::Result<()> {
    let times = times(attributes);
    // SAFETY: the name is NUL-terminated and both timespecs are live.
    check(unsafe { libc::utimensat(at, name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
}

fn copy(contents: &mut impl Read, file: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = contents.read(&mut buffer)?;
        if count == 0 {
            return Ok(size);
        }
        file.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

fn copy_sparse(contents: &mut impl Read, file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut size: u64 = 0;
    loop {
        // Whole buffers, so that pages stay aligned.
        let mut filled = 0;
        while filled < buffer.len() {
            match contents.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        for (index, page) in buffer[..filled].chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, size + (index * PAGE) as u64)?;
            }
        }
        size += filled as u64;
        if filled < buffer.len() {
            file.set_len(size)?;
            return Ok(size);
        }
    }
}
