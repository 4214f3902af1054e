//! The byte stream to the host: a virtio-serial port (QEMU), a vsock connection (Firecracker), or an inherited socket (tests).

use crate::sys::{self, check, own};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Name of the virtio-serial port.
const PORT_NAME: &str = "banger.agent";
/// vsock port on which the agent listens.
const VSOCK_PORT: u32 = 1024;

pub enum Channel {
    /// Stays open for ever; no host at the other end looks like no data.
    Port(OwnedFd),
    /// Connections come and go (a snapshot ends them); the newest counts.
    Vsock { listener: OwnedFd, connection: Option<OwnedFd> },
    /// Its end ends the agent.
    Inherited(OwnedFd),
}

impl Channel {
    /// The connection, if there is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Channel::Port(fd) | Channel::Inherited(fd) => Some(fd.as_fd()),
            Channel::Vsock { connection, .. } => connection.as_ref().map(AsFd::as_fd),
        }
    }
}

/// The channel, if its device is there by now.
pub fn find() -> io::Result<Option<Channel>> {
    if let Some(port) = open_port()? {
        return Ok(Some(Channel::Port(port)));
    }
    Ok(listen_vsock()?.map(|listener| Channel::Vsock { listener, connection: None }))
}

fn open_port() -> io::Result<Option<OwnedFd>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() != PORT_NAME {
            continue;
        }
        let device = sys::cpath(std::path::Path::new("/dev").join(port.file_name()))?;
        let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the path is NUL-terminated and outlives the call.
        return match own(unsafe { libc::open(device.as_ptr(), flags) }) {
            // The name is in /sys a moment before the node is in /dev.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            other => other.map(Some),
        };
    }
    Ok(None)
}

/// `None` while there is no vsock device.
fn listen_vsock() -> io::Result<Option<OwnedFd>> {
    const GET_LOCAL_CID: libc::Ioctl = 0x7b9;
    let Ok(device) = fs::File::open("/dev/vsock") else {
        return Ok(None);
    };
    let mut cid: u32 = libc::VMADDR_CID_ANY;
    // SAFETY: the ioctl writes one u32.
    let known = unsafe { libc::ioctl(device.as_raw_fd(), GET_LOCAL_CID, &mut cid) };
    if known < 0 || cid == libc::VMADDR_CID_ANY || cid <= libc::VMADDR_CID_HOST {
        return Ok(None);
    }
    // SAFETY: an all-zero sockaddr_vm is valid; it outlives the calls.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let listener = own(libc::socket(libc::AF_VSOCK, kind, 0))?;
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as u16;
        address.svm_cid = libc::VMADDR_CID_ANY;
        address.svm_port = VSOCK_PORT;
        check(libc::bind(listener.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t))?;
        check(libc::listen(listener.as_raw_fd(), 4))?;
        knock(address);
        Ok(Some(listener))
    }
}

/// Tells the host that this guest listens now: a connection to the same port of the host, closed at once. A host that has to connect first cannot
/// know when to. Nobody there to hear it is fine.
fn knock(mut address: libc::sockaddr_vm) {
    address.svm_cid = libc::VMADDR_CID_HOST;
    // SAFETY: the address outlives the call.
    unsafe {
        if let Ok(socket) = own(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) {
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t);
        }
    }
}

/// A connection that waits on `listener`.
pub fn accept(listener: BorrowedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the address of the peer is not asked for.
    own(unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}
