//! A port of the guest's loopback on which the agent itself waits.

use crate::sys::{check, own};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: libc::c_int = 1024;

/// Waits on 127.0.0.1.
pub fn on_loopback(port: u16) -> io::Result<OwnedFd> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address outlives the calls, and its size is that of its type.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = own(libc::socket(libc::AF_INET, kind, 0))?;
        // Connections of an earlier one may still be in their last wait.
        set(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR);
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
        check(libc::listen(socket.as_raw_fd(), BACKLOG))?;
        Ok(socket)
    }
}

pub fn without_delay(socket: BorrowedFd) {
    // SAFETY: the descriptor is live.
    unsafe { set(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY) }
}

/// Port of whoever has connected from this machine's loopback.
pub fn peer_port(socket: BorrowedFd) -> io::Result<u16> {
    // SAFETY: an all-zero sockaddr_in is valid; it and its length outlive the call.
    unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        let mut length = size_of_val(&address) as libc::socklen_t;
        check(libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &mut length))?;
        Ok(u16::from_be(address.sin_port))
    }
}

/// Refused, it costs latency only.
unsafe fn set(socket: libc::c_int, level: libc::c_int, option: libc::c_int) {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option reads one int.
    unsafe { libc::setsockopt(socket, level, option, (&raw const on).cast(), size) };
}
