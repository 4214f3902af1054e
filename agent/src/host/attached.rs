//! The networks that the host is on, as they are: one that it joins while a VM runs is nobody's business in there either.

use super::address::Cidr;
use crate::net::netlink::{Netlink, address_changes};
use std::io::{self, Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};

/// Of the network namespace that it was opened in, wherever its process goes.
pub struct Attached {
    changes: OwnedFd,
    netlink: Netlink,
}

impl Attached {
    /// Misses no change from now on.
    pub fn open() -> io::Result<Attached> {
        Ok(Attached { changes: address_changes()?, netlink: Netlink::open()? })
    }

    pub fn networks(&mut self) -> io::Result<Vec<Cidr>> {
        // A tunnel's address that is said to be everybody's network tells nothing.
        Ok(self.netlink.all_addresses()?.iter().filter(|subnet| subnet.prefix > 0).map(Cidr::of).collect())
    }

    /// Waits for the next change, or some at once.
    pub fn wait(&self) -> io::Result<()> {
        let mut message = [0_u8; 4096];
        loop {
            // SAFETY: the pointer and length are those of a live array.
            let count = unsafe { libc::recv(self.changes.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) };
            if count >= 0 {
                return Ok(());
            }
            let error = Error::last_os_error();
            // More of them than the socket holds are changes too.
            if error.raw_os_error() == Some(libc::ENOBUFS) {
                return Ok(());
            }
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}
