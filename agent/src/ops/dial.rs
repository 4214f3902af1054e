//! The `dial` operation: a connection to a TCP or unix address in the guest.

use crate::failure::Failure;
use crate::ops::request::Dial;
use crate::sys::{check, own};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Its peer sees a reset, not an end, when it is closed.
pub fn reset_at_close(socket: BorrowedFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option reads one struct. Refused (a unix socket): it then ends as any does.
    unsafe {
        let size = size_of::<libc::linger>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size);
    }
}

/// Starts to connect. The socket is writable once the attempt has ended; `outcome` then tells how.
pub fn start(request: &Dial) -> Result<OwnedFd, Failure> {
    match (&request.unix, request.port) {
        (Some(path), None) => connect_unix(Path::new(path)).map_err(|error| Failure::io(path, &error)),
        (None, Some(port)) => {
            let host = request.host.as_deref().unwrap_or("127.0.0.1");
            let address = match host {
                "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                _ => host.parse().map_err(|_| Failure::new("EINVAL", format!("{host:?} is not an IP address")))?,
            };
            connect_ip(address, port, request.udp)
                .map_err(|error| Failure::io(format!("{address} port {port}"), &error))
        }
        _ => Err(Failure::new("EPROTO", "dial wants either a port or a unix path")),
    }
}

/// The result of a connection attempt that has ended.
pub fn outcome(socket: BorrowedFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option writes one int into `error`.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut length)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    own(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })
}

fn connect<A>(socket: OwnedFd, address: &A) -> io::Result<OwnedFd> {
    // SAFETY: the address outlives the call and its size is that of its type.
    let result =
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const *address).cast(), size_of::<A>() as libc::socklen_t) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn connect_ip(address: IpAddr, port: u16, udp: bool) -> io::Result<OwnedFd> {
    let kind = if udp { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    let socket = socket(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }, kind)?;
    let on: libc::c_int = 1;
    // SAFETY: the option reads one int. A refusal (UDP has no such thing) costs latency only.
    unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), size);
    }
    match address {
        IpAddr::V4(ip) => {
            let to = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                sin_zero: [0; 8],
            };
            connect(socket, &to)
        }
        IpAddr::V6(ip) => {
            let to = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                sin6_scope_id: 0,
            };
            connect(socket, &to)
        }
    }
}

/// A socket that does not block.
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    let mut to = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    if bytes.len() >= to.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (slot, byte) in to.sun_path.iter_mut().zip(bytes) {
        *slot = *byte as libc::c_char;
    }
    connect(socket(libc::AF_UNIX, libc::SOCK_STREAM)?, &to)
}
