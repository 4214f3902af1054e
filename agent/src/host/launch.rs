//! Starts a VMM without privileges and stands beside it for as long as it runs: `--launch [--pipe PATH]… [--tap RULES] [--confine] [--read PATH]… [--write PATH]… -- [PROGRAM…]`
//!
//! `--pipe` puts a named pipe there, for it to write to. With `--tap` it gets a user and a network namespace with a tap in it, whose only way out is descriptor 3, passt's socket, by the rules of that
//! file (see `tap.rs`); with
//! `--confine` mount and process namespaces too, in which it finds the program and the given paths, and no other process (`confine.rs`). Either way
//! it has no capability.
//!
//! The program's number goes to descriptor 4, as a line, and what is to be said of its network to descriptor 5. It has a session of its own; this process ends as it ends, ends it at SIGTERM, and takes it
//! along however it dies itself. Without a program all of that is made, and let go of: a trial.

use super::attached::Attached;
use super::confine::{self, View};
use super::tap::{self, Relay};
use crate::sys::{self, check, named, path_of};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Inherited: one end of a connected pair, passt has the other. Without it the namespace has no way out.
const PASST: RawFd = 3;
/// Inherited: gets the program's number.
const TELL: RawFd = 4;
/// Inherited: gets what is to be said of the network, in place of stderr.
const NETWORK_LOG: RawFd = 5;
/// Highest capability number the kernel may come to have.
const CAPABILITIES: libc::c_ulong = 63;
/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// The program, for the handler of SIGTERM.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

pub struct Launch<'a> {
    /// The file of the network's policy, where there is to be one.
    tap: Option<&'a CStr>,
    confine: bool,
    pipes: Vec<&'a CStr>,
    view: View<'a>,
    program: &'a [&'a CStr],
}

impl Launch<'_> {
    fn in_namespaces(&self) -> bool {
        self.tap.is_some() || self.confine
    }
}

/// `None` where it cannot be understood.
pub fn parse<'a>(arguments: &'a [&'a CStr]) -> Option<Launch<'a>> {
    let mut launch = Launch {
        tap: None,
        confine: false,
        pipes: Vec::new(),
        view: View { read: Vec::new(), write: Vec::new() },
        program: &[],
    };
    let mut rest = arguments;
    loop {
        match rest {
            [flag, rules, left @ ..] if *flag == c"--tap" => {
                launch.tap = Some(rules);
                rest = left;
            }
            [flag, left @ ..] if *flag == c"--confine" => {
                launch.confine = true;
                rest = left;
            }
            [flag, path, left @ ..] if *flag == c"--pipe" => {
                launch.pipes.push(path);
                rest = left;
            }
            [flag, path, left @ ..] if *flag == c"--read" => {
                launch.view.read.push(path);
                rest = left;
            }
            [flag, path, left @ ..] if *flag == c"--write" => {
                launch.view.write.push(path);
                rest = left;
            }
            [flag, program @ ..] if *flag == c"--" => {
                launch.program = program;
                return Some(launch);
            }
            _ => return None,
        }
    }
}

/// Returns the program's exit status; one that a signal has ended ends this process likewise.
pub fn run(mut launch: Launch) -> io::Result<libc::c_int> {
    let passt = inherited(PASST)?;
    let tell = inherited(TELL)?;
    let log = inherited(NETWORK_LOG)?;
    block(libc::SIG_BLOCK)?;
    launch.view.read.extend(launch.program.first());
    for path in &launch.pipes {
        named(&path.to_string_lossy(), make_pipe(path))?;
    }
    // Of the host, which is left behind here. Without it the networks in the rules count.
    let attached = launch.tap.and_then(|_| Attached::open().ok());
    if launch.in_namespaces() {
        enter_namespaces()?;
    }
    let mut relay = None;
    if let Some(rules) = launch.tap {
        tap::make()?;
        if let Some(passt) = passt {
            relay = Some((named("network relay", Relay::new(File::from(passt)))?, rules, attached));
        }
    }
    // The program learns by the end of this pipe that nobody stands beside it any more.
    let (lives, held) = sys::pipe()?;
    let namespaces = if launch.confine { libc::CLONE_NEWPID | libc::CLONE_NEWNS } else { 0 };
    // As fork does; it can also make the first process of a namespace, which this one's threads stay out of.
    // SAFETY: this process has one thread, so the child may do anything. All pointers are null.
    let child = unsafe { libc::syscall(libc::SYS_clone, namespaces | libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
    if check(child)? == 0 {
        drop(held);
        let ended = become_program(&launch, &lives);
        if let Err(error) = &ended {
            eprintln!("banger-vsock-agent: {error}");
        }
        // SAFETY: ends this process.
        unsafe { libc::_exit(if ended.is_ok() { 0 } else { 127 }) }
    }
    PROGRAM.store(child, Ordering::SeqCst);
    if let Err(error) = stand_by(child, tell, log, relay, launch.in_namespaces()) {
        end_program(libc::SIGTERM);
        wait(child)?;
        return Err(error);
    }
    wait(child)
}

fn stand_by(
    child: libc::pid_t,
    tell: Option<OwnedFd>,
    log: Option<OwnedFd>,
    relay: Option<(Relay, &CStr, Option<Attached>)>,
    in_namespaces: bool,
) -> io::Result<()> {
    // SAFETY: the handler only calls kill.
    unsafe {
        libc::signal(libc::SIGTERM, end_program as *const () as libc::sighandler_t);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    block(libc::SIG_UNBLOCK)?;
    if let Some(tell) = tell {
        // Who does not read it any more does not want it.
        let _ = File::from(tell).write_all(format!("{child}\n").as_bytes());
    }
    if in_namespaces {
        drop_capabilities()?;
    }
    if let Some(log) = log {
        // SAFETY: live descriptors.
        check(unsafe { libc::dup2(log.as_raw_fd(), libc::STDERR_FILENO) })?;
    }
    if let Some((relay, rules, attached)) = relay {
        named("network relay", relay.start(path_of(rules), attached))?;
    }
    Ok(())
}

/// In place of what is there.
fn make_pipe(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated and outlives the calls.
    unsafe {
        libc::unlink(path.as_ptr());
        check(libc::mkfifo(path.as_ptr(), 0o600)).map(drop)
    }
}

extern "C" fn end_program(_: libc::c_int) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(PROGRAM.load(Ordering::SeqCst), libc::SIGKILL) };
}

/// A descriptor that this process was started with, and that the program does not get.
fn inherited(fd: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Ok(None);
    }
    // SAFETY: the descriptor is open and nobody else's.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// SIGTERM, for as long as there is nobody to pass it on to.
fn block(how: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero set is valid, and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        check(libc::sigprocmask(how, &set, std::ptr::null_mut())).map(drop)
    }
}

/// Replaces the child. Returns on failure, or where there is no program.
fn become_program(launch: &Launch, lives: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed but a pollfd that outlives the call.
    unsafe {
        check(libc::setsid())?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0))?;
        // It may have died before that.
        let mut end = libc::pollfd { fd: lives.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        if libc::poll(&mut end, 1, 0) != 0 {
            return Ok(());
        }
    }
    block(libc::SIG_UNBLOCK)?;
    if launch.confine {
        confine::enter(&launch.view)?;
    }
    if launch.in_namespaces() {
        drop_capabilities()?;
    }
    let Some(program) = launch.program.first() else {
        return Ok(());
    };
    let mut argv: Vec<*const libc::c_char> = launch.program.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    // SAFETY: both vectors end in a null pointer, their strings outlive the call.
    unsafe {
        if launch.confine {
            // What the environment holds is nobody's business in there.
            libc::execve(argv[0], argv.as_ptr(), [std::ptr::null()].as_ptr());
        } else {
            libc::execvp(argv[0], argv.as_ptr());
        }
    }
    named(&program.to_string_lossy(), Err(Error::last_os_error()))
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

/// Of this process and of all that it executes.
fn drop_capabilities() -> io::Result<()> {
    named("giving up capabilities", try_to_drop_capabilities())
}

fn try_to_drop_capabilities() -> io::Result<()> {
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

fn wait(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: the status outlives the call.
        match check(unsafe { libc::waitpid(child, &mut status, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        break;
    }
    if libc::WIFEXITED(status) {
        return Ok(libc::WEXITSTATUS(status));
    }
    let signal = libc::WTERMSIG(status);
    // SAFETY: the limit outlives the call.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    Ok(128 + signal)
}
