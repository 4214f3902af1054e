//! `configure`: everything that makes this guest this VM.

use super::request::Configure;
use crate::failure::{Failure, on};
use crate::identity::{entropy, hosts, ids, ssh};
use crate::net;
use crate::sys::check;
use std::path::Path;

/// Applies what is given. The clock and the randomness come first: all else may depend on them.
pub fn apply(request: &Configure, first: bool) -> Result<(), Failure> {
    if let Some(clock) = &request.clock_ns {
        set_clock(clock)?;
    }
    if let Some(entropy) = &request.entropy {
        entropy::add(entropy)?;
    }
    crate::boot::mounts::make_folder("/etc", 0o755).map_err(on("/etc"))?;
    if let Some(id) = &request.machine_id {
        ids::set_machine_id(id)?;
    }
    if let Some(id) = &request.boot_id {
        ids::set_boot_id(id)?;
    }
    if let Some(name) = &request.hostname {
        hosts::set_hostname(name)?;
    }
    let network = request.network.as_ref();
    if request.hostname.is_some() || network.is_some() || !Path::new("/etc/hosts").exists() {
        hosts::set_hosts(request.hostname.as_deref(), network.map(|network| network.hosts.as_slice()))?;
    }
    if first {
        net::loopback_up()?;
    }
    if let Some(network) = network {
        net::configure(network)?;
        if let Some(servers) = &network.dns {
            hosts::set_resolvers(servers)?;
        }
    }
    match &request.ssh {
        Some(keys) => ssh::install(keys),
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
