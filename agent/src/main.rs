//! The agent in every banger guest. See `docs/guest-protocol.md`.
//!
//! As process 1 it boots the guest, speaks to the host, and either starts the image's init and lives on beside it, or stays process 1.
//! On the host, `--measure-tsc` prints the rate of the time-stamp counter in kHz, for the kernel arguments of emulated VMs, and
//! `--filter-network` stands between QEMU and passt, `--save-memory` saves the memory of a paused VM, `--traceable` starts a VMM whose memory can
//! be saved, `--launch` one that gets nothing of the host but what it needs (see `host/`).
//! With `--serve-fd N` it serves the protocol on an inherited socket, without booting anything: for tests.

#![cfg_attr(not(test), no_main)]

mod agent;
mod boot;
mod channel;
mod console;
mod failure;
mod frame;
mod host;
mod identity;
mod mux;
mod net;
mod ops;
mod process;
mod sys;
mod users;

use agent::Agent;
use boot::{Booted, handover};
use channel::Channel;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};

/// The C entry point: the agent needs the memory of argv[0], and nothing that Rust's start-up would add.
///
/// # Safety
/// Called by the C library, with the kernel's argument vector.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn main(argc: libc::c_int, argv: *mut *mut libc::c_char) -> libc::c_int {
    // SAFETY: the argument vector is the kernel's; it has `argc` strings.
    let arguments: Vec<&CStr> = unsafe {
        handover::remember_argv0(argc, argv);
        (0..argc.max(0) as usize).map(|index| CStr::from_ptr(*argv.add(index))).collect()
    };
    // SAFETY: cannot fail.
    if unsafe { libc::getpid() } == 1 {
        serve_as_init();
    }
    match arguments.get(1..).unwrap_or(&[]) {
        [flag] if *flag == c"--version" => {
            println!("banger-vsock-agent {}", env!("CARGO_PKG_VERSION"));
            0
        }
        [flag] if *flag == c"--measure-tsc" => {
            println!("{}", host::tsc::frequency());
            0
        }
        [flag, rules] if *flag == c"--filter-network" => match host::net_filter::run(sys::path_of(rules)) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("banger-vsock-agent: network filter: {error}");
                1
            }
        },
        [flag, pid, size, target] if *flag == c"--save-memory" => save_memory(pid, size, target),
        [flag, most, file] if *flag == c"--data-ranges" => data_ranges(most, file),
        [flag, program @ ..] if *flag == c"--traceable" => {
            eprintln!("banger-vsock-agent: {}", host::traceable::exec(program));
            127
        }
        [flag, words @ ..] if *flag == c"--launch" => match host::launch::parse(words) {
            Some(launch) => host::launch::run(launch).unwrap_or_else(|error| {
                eprintln!("banger-vsock-agent: {error}");
                127
            }),
            None => usage(),
        },
        [flag, fd] if *flag == c"--serve-fd" => match fd.to_str().ok().and_then(|text| text.parse().ok()) {
            Some(fd) => serve_inherited(fd),
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> libc::c_int {
    eprintln!(
        "usage: banger-vsock-agent --version | --measure-tsc | --filter-network RULES | --save-memory PID BYTES FILE | --data-ranges MOST FILE | --traceable PROGRAM… | --launch … | --serve-fd N\nRuns by itself as /init of a banger guest."
    );
    2
}

fn save_memory(pid: &CStr, size: &CStr, target: &CStr) -> libc::c_int {
    let number = |text: &CStr| text.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    let (Some(pid), Some(size), Ok(target)) = (number(pid), number(size), target.to_str()) else {
        return usage();
    };
    match host::save_memory::run(pid as u32, size, target) {
        Ok(written) => {
            println!("{written}");
            0
        }
        Err(error) => {
            eprintln!("banger-vsock-agent: memory of process {pid}: {error}");
            1
        }
    }
}

fn data_ranges(most: &CStr, file: &CStr) -> libc::c_int {
    let Some(most) = most.to_str().ok().and_then(|text| text.parse().ok()) else {
        return usage();
    };
    let told = std::fs::File::open(sys::path_of(file))
        .and_then(|file| host::data_ranges::run(&file, most, &mut std::io::stdout()));
    match told {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("banger-vsock-agent: {}: {error}", file.to_string_lossy());
            1
        }
    }
}

fn serve_as_init() -> ! {
    let ended = match start_as_init() {
        Ok(mut agent) => match agent.run() {
            Ok(()) => "the channel has ended".to_string(),
            Err(error) => format!("event loop: {error}"),
        },
        Err(failure) => format!("{} ({})", failure.message, failure.code),
    };
    console::say_fatal(&ended);
    boot::power::halt(true)
}

fn start_as_init() -> Result<Agent, failure::Failure> {
    sys::block_signals()?;
    let (channel, booted) = boot::boot()?;
    Ok(Agent::new(channel, booted)?)
}

fn serve_inherited(fd: i32) -> libc::c_int {
    // A copy above 2 keeps out of the way of programs' standard streams.
    // SAFETY: no memory is passed; a wrong number is an error.
    let copied = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copied < 0 {
        eprintln!("banger-vsock-agent: descriptor {fd}: {}", std::io::Error::last_os_error());
        return 1;
    }
    // SAFETY: just created.
    let channel = unsafe { OwnedFd::from_raw_fd(copied) };
    let served = sys::block_signals()
        .and_then(|()| sys::set_nonblocking(std::os::fd::AsFd::as_fd(&channel)))
        .and_then(|()| Agent::new(Channel::Inherited(channel), Booted::default()))
        .and_then(|mut agent| agent.run());
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("banger-vsock-agent: {error}");
            1
        }
    }
}
