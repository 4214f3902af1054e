//! Pseudo terminals.

use crate::sys::{check, own};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Opens a pair: (our side, the program's side).
pub fn open(cols: u16, rows: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: constant path; the ioctls write nothing but what they are given.
    unsafe {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let master = own(libc::open(c"/dev/ptmx".as_ptr(), flags | libc::O_NONBLOCK))?;
        let unlock: libc::c_int = 0;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock))?;
        let slave = own(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        resize(std::os::fd::AsFd::as_fd(&master), cols, rows)?;
        Ok((master, slave))
    }
}

/// Sets the window size; the kernel tells the foreground group by SIGWINCH.
pub fn resize(master: BorrowedFd, cols: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// Gives the program's side to `uid`, which programs such as `mesg` and `screen` check.
pub fn give(slave: BorrowedFd, uid: u32) -> io::Result<()> {
    // SAFETY: plain call on a live descriptor.
    check(unsafe { libc::fchown(slave.as_raw_fd(), uid, u32::MAX) }).map(drop)
}
