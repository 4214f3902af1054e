//! Events of the kernel's device model, as a reason to look again.

use crate::sys::{check, own, would_block};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

/// The netlink group of the kernel's own messages.
const KERNEL_GROUP: u32 = 1;

pub struct Uevents(OwnedFd);

impl Uevents {
    /// From now on no event is missed.
    pub fn open() -> io::Result<Uevents> {
        // SAFETY: an all-zero sockaddr_nl is valid; it outlives the call.
        unsafe {
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let socket = own(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT))?;
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as u16;
            address.nl_groups = KERNEL_GROUP;
            let size = size_of_val(&address) as libc::socklen_t;
            check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size))?;
            Ok(Uevents(socket))
        }
    }

    /// Waits for the next event. False when `deadline` has passed.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let left = deadline.saturating_duration_since(Instant::now()).as_millis().min(60_000) as i32;
        // SAFETY: one pollfd is passed.
        match check(unsafe { libc::poll(&mut poll, 1, left) }) {
            Ok(0) => return Ok(false),
            Err(error) if !would_block(&error) => return Err(error),
            _ => {}
        }
        let mut message = [0_u8; 8192];
        // Emptied whole; an overflow (ENOBUFS) is an event too.
        // SAFETY: the pointer and length are those of a live array.
        while unsafe { libc::recv(self.0.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) } > 0 {}
        Ok(true)
    }
}
