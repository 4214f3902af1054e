//! `configure`: everything that makes this guest this VM.

use super::request::Configure;
use crate::failure::{Failure, on};
use crate::identity::files::Files;
use crate::identity::{entropy, hosts, ids, ssh};
use crate::net;
use crate::sys::check;
use std::path::Path;

/// Files that tell who a guest is: those that a clone holds back until they are its own.
pub const IDENTITY: [&str; 7] = [
    ids::MACHINE_ID,
    ids::OUR_BOOT_ID,
    hosts::HOSTNAME,
    hosts::HOSTS,
    ssh::HOST_KEY,
    ssh::HOST_KEY_PUBLIC,
    ssh::AUTHORIZED_KEYS,
];

/// Checks what is given, and applies what is no file of `IDENTITY`. The clock and the randomness come first: all else may depend on them.
pub fn apply(request: &Configure, first: bool) -> Result<(), Failure> {
    request.machine_id.as_deref().map_or(Ok(()), ids::check_machine_id)?;
    request.boot_id.as_deref().map_or(Ok(()), ids::check_boot_id)?;
    if let Some(network) = &request.network {
        hosts::check_hosts(&network.hosts)?;
    }
    if let Some(clock) = &request.clock_ns {
        set_clock(clock)?;
    }
    if let Some(entropy) = &request.entropy {
        entropy::add(entropy)?;
    }
    if let Some(name) = &request.hostname {
        hosts::set_hostname(name)?;
    }
    if first {
        crate::boot::mounts::make_folder("/etc", 0o755).map_err(on("/etc"))?;
        net::loopback_up()?;
    }
    match &request.network {
        Some(network) => net::configure(network),
        None => Ok(()),
    }
}

/// Whether anything is given that belongs into the files of `IDENTITY`.
pub fn tells_identity(request: &Configure) -> bool {
    let Configure { hostname, machine_id, boot_id, network, ssh, .. } = request;
    [hostname, machine_id, boot_id].iter().any(|given| given.is_some()) || network.is_some() || ssh.is_some()
}

/// Writes what is given into the files of `IDENTITY`.
pub fn write_identity(request: &Configure, files: &Files) -> Result<(), Failure> {
    if let Some(id) = &request.machine_id {
        ids::set_machine_id(id, files)?;
    }
    if let Some(id) = &request.boot_id {
        ids::set_boot_id(id, files)?;
    }
    if let Some(name) = &request.hostname {
        hosts::write_hostname(name, files)?;
    }
    let network = request.network.as_ref();
    if request.hostname.is_some() || network.is_some() || !Path::new(hosts::HOSTS).exists() {
        hosts::set_hosts(request.hostname.as_deref(), network.map(|network| network.hosts.as_slice()), files)?;
    }
    match &request.ssh {
        Some(keys) => ssh::install(keys, files),
        None => Ok(()),
    }
}

/// Sets CLOCK_REALTIME. `text` is ns since 1970.
pub fn set_clock(text: &str) -> Result<(), Failure> {
    let invalid = || Failure::new("EINVAL", format!("clock_ns: {text:?} is not a number of nanoseconds"));
    let ns: i64 = text.parse().map_err(|_| invalid())?;
    if ns < 0 {
        return Err(invalid());
    }
    let time = libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) }).map_err(on("set the clock")).map(drop)
}
