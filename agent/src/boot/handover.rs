//! From process 1 to the image's own init, with the agent living on beside it.

use crate::sys::{self, check, cstring, own};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Abstract address at which the agent hears systemd's READY=1.
const NOTIFY_ADDRESS: &[u8] = b"\0banger-notify";

/// First byte of the process's argv[0] in the memory that /proc/PID/cmdline shows.
static ARGV0: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

/// Remembers where argv[0] is. `argv` is what `main` was given.
///
/// # Safety
/// `argv` must be the kernel's argument vector: it stays valid for the life of the process.
pub unsafe fn remember_argv0(argc: libc::c_int, argv: *mut *mut libc::c_char) {
    if argc > 0 && !argv.is_null() {
        // SAFETY: the caller's promise.
        ARGV0.store(unsafe { *argv }, Ordering::Relaxed);
    }
}

/// The socket for $NOTIFY_SOCKET, bound before the init starts so that no word of it is lost.
pub fn notify_socket() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sockaddr_un is valid; it outlives the call.
    unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = own(libc::socket(libc::AF_UNIX, kind, 0))?;
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        for (slot, byte) in address.sun_path.iter_mut().zip(NOTIFY_ADDRESS) {
            *slot = *byte as libc::c_char;
        }
        let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + NOTIFY_ADDRESS.len();
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length as libc::socklen_t))?;
        Ok(socket)
    }
}

/// Forks: this process executes the init, the child returns. Other threads do not survive in the child: there must be none.
pub fn fork_init(path: &str) -> io::Result<()> {
    let program = cstring(path)?;
    let argv = [program.as_ptr(), ptr::null()];
    let environment = [
        c"NOTIFY_SOCKET=@banger-notify".as_ptr(),
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(),
        c"HOME=/".as_ptr(),
        c"TERM=linux".as_ptr(),
        ptr::null(),
    ];
    // SAFETY: there is one thread, so the child is a whole copy of us; execve gets NUL-terminated strings in null-terminated arrays.
    unsafe {
        if check(libc::fork())? == 0 {
            become_helper();
            return Ok(());
        }
        sys::unblock_signals();
        libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
        let error = io::Error::last_os_error();
        crate::console::say_fatal(&format!("{path}: {error}"));
        super::power::halt(true)
    }
}

/// A process of its own, that systemd's last kill spares because its argv[0] starts with `@`.
fn become_helper() {
    let argv0 = ARGV0.load(Ordering::Relaxed);
    // SAFETY: the memory of argv is ours to write, and argv[0] has at least its terminating byte.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"banger-agent".as_ptr());
        if !argv0.is_null() && *argv0 != 0 {
            *argv0 = b'@' as libc::c_char;
        }
    }
}

/// Whether the init at `path` speaks systemd's protocols.
pub fn is_systemd(path: &str) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.file_name().is_some_and(|name| name == "systemd"))
}

/// The signal by which the init at `path` is asked to stop the machine.
pub fn stop_signal(path: &str, reboot: bool) -> i32 {
    match (is_systemd(path), reboot) {
        (true, false) => libc::SIGRTMIN() + 4,
        (true, true) => libc::SIGRTMIN() + 5,
        // busybox init and those that follow it.
        (false, false) => libc::SIGUSR2,
        (false, true) => libc::SIGTERM,
    }
}
