//! Thin wrappers over libc: errno becomes io::Error, descriptors are owned and close-on-exec.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// -1 becomes the error that errno names.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As `check`, for a call that returns a new descriptor.
pub fn own(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just handed this descriptor to us alone.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Says at what it failed.
pub fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

pub fn would_block(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

pub fn cstring(text: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(text.as_ref()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

pub fn path_of(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

pub fn cpath(path: impl AsRef<Path>) -> io::Result<CString> {
    cstring(path.as_ref().as_os_str().as_bytes())
}

pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live slice.
    let count = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

pub fn write(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live slice.
    let count = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// A pipe: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just created and belong to us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sets O_NONBLOCK, replacing the other status flags: for descriptors that have none (pipes, sockets, terminals).
pub fn set_nonblocking(fd: BorrowedFd) -> io::Result<()> {
    // SAFETY: plain fcntl on a live descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

pub fn set_pipe_size(fd: BorrowedFd, bytes: i32) {
    // SAFETY: plain fcntl on a live descriptor. Refusal (a limit) costs speed only.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

/// Moves up to `want` bytes between a pipe and a file without copying them through our memory; 0 at the end.
pub fn splice(from: BorrowedFd, to: BorrowedFd, want: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: live descriptors; both offsets are the files' own.
    let count = unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, want, 0) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Bytes that can be read from a pipe now.
pub fn readable_bytes(fd: BorrowedFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut count) };
    if result < 0 { 0 } else { count.max(0) as usize }
}

/// Sends `signal` to a process, or to a group when `pid` is negative. A target that is already gone is no error.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match check(unsafe { libc::kill(pid, signal) }) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Fills `buffer` from the kernel's generator.
pub fn random(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the pointer and length are those of a live slice; up to 256 bytes are never cut short.
    let count = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if count == buffer.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks every signal: SIGCHLD is taken from a signalfd, SIGPIPE becomes EPIPE, and nothing else may stop the agent.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut())).map(drop)
    }
}

pub fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// A descriptor that is readable when a child has changed state.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        own(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    /// Watches `fd`, edge-triggered: the reader remembers readiness until the kernel says EAGAIN.
    pub fn add(&self, fd: BorrowedFd, events: libc::c_int, key: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events | libc::EPOLLET, key)
    }

    /// Watches `fd` for as long as it is ready: what is left unread is told again.
    pub fn add_level(&self, fd: BorrowedFd, events: libc::c_int, key: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, key)
    }

    /// Changes what a watched descriptor is watched for, and how: `EPOLLET` is among `events` or is not.
    pub fn change(&self, fd: BorrowedFd, events: libc::c_int, key: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, key)
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd, events: libc::c_int, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: key };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }).map(drop)
    }

    /// Waits at most `timeout_ms` (-1: for ever) and returns how many of `events` were filled.
    pub fn wait(&self, events: &mut [libc::epoll_event], timeout_ms: i32) -> io::Result<usize> {
        // SAFETY: the pointer and length are those of a live slice.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout_ms) };
        match check(count) {
            Err(error) if would_block(&error) => Ok(0),
            other => other.map(|count| count as usize),
        }
    }
}
