//! Runs a VMM that wants a tap (Firecracker) without privileges: in a user and network namespace of its own, where the tap lies, and whose only
//! way out is descriptor 3, passt's socket. A second process relays between the two and drops what no guest may send.
//!
//! ```text
//! guest - Firecracker - tap0 - packet socket - this relay, with the filter - passt - the host's network
//! ```
//!
//! The tap belongs to the user, so that the VMM needs no capability to open it, and gets none: they end before it is executed.

use super::gate::{Admission, Gate};
use super::net_filter::{FRAME_MAX, PREFIX, may_enter};
use crate::sys::{check, own};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// As Firecracker is told to call it.
const NAME: &[u8] = b"tap0";
/// Inherited: one end of a connected pair, passt has the other. Without it the namespace has no way out.
const PASST: i32 = 3;
/// Highest capability number the kernel may come to have.
const CAPABILITIES: libc::c_ulong = 63;
/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Room for what the guest sends while passt is busy, in bytes; the kernel may give less.
const RECEIVE_BUFFER: libc::c_int = 4 * 1024 * 1024;

/// Replaces this process by the program. Returns only on failure. `rules`: the file of the network's policy.
pub fn exec(rules: &Path, argv: &[&CStr]) -> Error {
    let Some(program) = argv.first() else {
        return Error::from_raw_os_error(libc::EINVAL);
    };
    let prepared = enter_namespaces()
        .and_then(|()| make_tap())
        .and_then(|()| named("network relay", start_relay(rules)))
        .and_then(|()| named("giving up capabilities", drop_capabilities()));
    if let Err(error) = prepared {
        return error;
    }
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: the vector ends in a null pointer, its strings outlive the call.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    let error = Error::last_os_error();
    Error::new(error.kind(), format!("{}: {error}", program.to_string_lossy()))
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| Error::new(error.kind(), format!("{what}: {error}")))
}

/// The user keeps its own number, so that its files and devices stay its own.
fn enter_namespaces() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: this process has one thread.
    named("user and network namespace", check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) }))?;
    // An unprivileged map of groups is allowed only without setgroups. Groups that the user has keep counting.
    let settings = [
        ("setgroups", "deny".to_string()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ];
    for (file, text) in settings {
        named(file, std::fs::write(format!("/proc/self/{file}"), text))?;
    }
    // The namespace's own stack has no part in this. A kernel without IPv6 has no such file.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(())
}

fn interface_request() -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = *from as libc::c_char;
    }
    request
}

fn make_tap() -> io::Result<()> {
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

/// Forks the relay, which ends with this process, whatever that becomes.
fn start_relay(rules: &Path) -> io::Result<()> {
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(PASST, libc::F_GETFD) } < 0 {
        return Ok(());
    }
    // SAFETY: the descriptor is open and nobody else's.
    let passt = File::from(unsafe { OwnedFd::from_raw_fd(PASST) });
    let tap = packet_socket()?;
    let parent = std::process::id();
    // SAFETY: this process has one thread, so the child may do anything.
    match check(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: no memory is passed.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
                libc::fcntl(passt.as_raw_fd(), libc::F_SETFL, 0);
                if parent != libc::getppid() as u32 {
                    libc::_exit(0);
                }
            }
            let ended = open_gate(rules, &tap).and_then(|gate| relay(tap, passt, &gate));
            if let Err(error) = ended {
                eprintln!("banger-vsock-agent: network relay: {error}");
            }
            // SAFETY: ends this process with all its threads.
            unsafe { libc::_exit(0) }
        }
        // Both are closed here: passt must see the end of its socket when the relay ends.
        _ => Ok(()),
    }
}

fn open_gate(rules: &Path, tap: &File) -> io::Result<Arc<Gate>> {
    let of_team = tap.try_clone()?;
    // As in `deliver`: what the tap does not take is lost.
    Gate::open(rules, Arc::new(move |frame: &[u8]| drop((&of_team).write(frame))))
}

fn relay(tap: File, passt: File, gate: &Arc<Gate>) -> io::Result<()> {
    let (to_tap, from_passt) = (tap.try_clone()?, passt.try_clone()?);
    let known = gate.clone();
    let answers = thread::spawn(move || {
        let ended = deliver(from_passt, to_tap, &known);
        // The other direction waits for the guest, which need not say anything any more.
        // SAFETY: ends this process with all its threads.
        unsafe { libc::_exit(i32::from(ended.is_err())) }
    });
    let ended = send(tap, passt, gate);
    drop(answers);
    ended
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

/// Of this process and of all that it executes.
fn drop_capabilities() -> io::Result<()> {
    let header = [CAPABILITY_VERSION, 0];
    let none = [0_u32; 6];
    // SAFETY: header and data are those of the call, and outlive it.
    unsafe {
        for capability in 0..=CAPABILITIES {
            // The first number that the kernel does not know is EINVAL.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) as i32)?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).map(drop)
    }
}
