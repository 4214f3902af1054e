//! The tap of a VMM (Firecracker) in a network namespace of its own, and a relay between it and passt, which drops what no guest may send.
//!
//! ```text
//! guest - Firecracker - tap0 - packet socket - this relay, with the filter - passt - the host's network
//! ```
//!
//! The tap belongs to the user, so that the VMM needs no capability to open it.

use super::attached::Attached;
use super::gate::{Admission, Gate};
use super::net_filter::{FRAME_MAX, PREFIX, may_enter};
use crate::sys::{check, named, own};
use std::fs::File;
use std::io::{self, Error, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// As Firecracker is told to call it.
const NAME: &[u8] = b"tap0";
/// Room for what the guest sends while passt is busy, in bytes; the kernel may give less.
const RECEIVE_BUFFER: libc::c_int = 4 * 1024 * 1024;

fn interface_request() -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = *from as libc::c_char;
    }
    request
}

pub fn make() -> io::Result<()> {
    let device = named("/dev/net/tun", File::options().read(true).write(true).open("/dev/net/tun"))?;
    let mut request = interface_request();
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the request outlives the calls; the other arguments are numbers.
    unsafe {
        let fd = device.as_raw_fd();
        named("tap", check(libc::ioctl(fd, libc::TUNSETIFF as libc::Ioctl, &mut request)))?;
        named(
            "owner of the tap",
            check(libc::ioctl(fd, libc::TUNSETOWNER as libc::Ioctl, libc::c_ulong::from(libc::geteuid()))),
        )?;
        named("tap that stays", check(libc::ioctl(fd, libc::TUNSETPERSIST as libc::Ioctl, 1 as libc::c_ulong)))?;
        let control = own(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        named("tap up", check(libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)))?;
    }
    Ok(())
}

/// Every frame that the VMM writes to the tap, and a way to hand it frames.
fn packet_socket() -> io::Result<File> {
    let mut name = [0; libc::IF_NAMESIZE];
    name[..NAME.len()].copy_from_slice(NAME);
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the name is NUL-terminated; address and option outlive the calls.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr().cast());
        if index == 0 {
            return Err(Error::last_os_error());
        }
        let socket = own(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
        // Less room costs frames under load only.
        let size = RECEIVE_BUFFER;
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        );
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = size_of_val(&address) as libc::socklen_t;
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        Ok(File::from(socket))
    }
}

/// Carries frames between the tap and passt for as long as both are there. What ends it ends the guest's network and nothing else.
pub struct Relay {
    tap: File,
    passt: File,
}

impl Relay {
    /// Listens to the tap from now on.
    pub fn new(passt: File) -> io::Result<Relay> {
        // SAFETY: no memory is passed.
        check(unsafe { libc::fcntl(passt.as_raw_fd(), libc::F_SETFL, 0) })?;
        Ok(Relay { tap: packet_socket()?, passt })
    }

    /// `rules`: the file of the network's policy. `attached`: whom to ask about the host's networks.
    pub fn start(self, rules: &Path, attached: Option<Attached>) -> io::Result<()> {
        let of_team = self.tap.try_clone()?;
        // As in `deliver`: what the tap does not take is lost.
        let gate = Gate::open(rules, Arc::new(move |frame: &[u8]| drop((&of_team).write(frame))), attached)?;
        let (to_tap, from_passt) = (self.tap.try_clone()?, self.passt.try_clone()?);
        let known = gate.clone();
        thread::spawn(move || tell(deliver(from_passt, to_tap, &known)));
        thread::spawn(move || tell(send(self.tap, self.passt, &gate)));
        Ok(())
    }
}

fn tell(ended: io::Result<()>) {
    if let Err(error) = ended {
        eprintln!("banger-vsock-agent: network relay: {error}");
    }
}

/// From the guest outwards.
fn send(mut tap: File, mut passt: File, gate: &Gate) -> io::Result<()> {
    let mut buffer = vec![0; PREFIX + FRAME_MAX];
    loop {
        let length = match tap.read(&mut buffer[PREFIX..]) {
            Ok(length) => length,
            // The tap is down for as long as the VMM has not opened it, or has let go of it.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match gate.admit(&buffer[PREFIX..PREFIX + length]) {
            Admission::Pass => {
                buffer[..PREFIX].copy_from_slice(&(length as u32).to_be_bytes());
                passt.write_all(&buffer[..PREFIX + length])?;
            }
            Admission::Drop => {}
            // As in `deliver`: what the tap does not take is lost.
            Admission::Answer(frame) => drop(tap.write(&frame)),
        }
    }
}

/// From passt to the guest.
fn deliver(mut passt: File, mut tap: File, gate: &Gate) -> io::Result<()> {
    let mut buffer = vec![0; FRAME_MAX];
    let mut prefix = [0; PREFIX];
    loop {
        match passt.read_exact(&mut prefix) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let length = u32::from_be_bytes(prefix) as usize;
        let Some(frame) = buffer.get_mut(..length) else {
            return Err(Error::new(io::ErrorKind::InvalidData, "a frame longer than any"));
        };
        passt.read_exact(frame)?;
        gate.learn(frame);
        if may_enter(frame) {
            // What the tap does not take (it is full, or down, or the frame is longer than its MTU) is lost, as on any wire.
            let _ = tap.write(frame);
        }
    }
}
