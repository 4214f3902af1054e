//! Host name, /etc/hosts and /etc/resolv.conf.

use super::files::Files;
use crate::failure::{Failure, on};
use crate::ops::request::Host;
use crate::sys::check;
use std::net::IpAddr;
use std::path::Path;

/// Ends each line of /etc/hosts that is ours, so that a later configuration replaces it.
const MARK: &str = "# banger";

pub const HOSTNAME: &str = "/etc/hostname";
pub const HOSTS: &str = "/etc/hosts";
const RESOLVERS: &str = "/etc/resolv.conf";

/// The kernel's; `write_hostname` is for the file.
pub fn set_hostname(name: &str) -> Result<(), Failure> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        return Err(Failure::new("EINVAL", format!("{name:?} is not a host name")));
    }
    // SAFETY: pointer and length are those of a live string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map_err(on("sethostname")).map(drop)
}

pub fn write_hostname(name: &str, files: &Files) -> Result<(), Failure> {
    files.put(Path::new(HOSTNAME), format!("{name}\n").as_bytes(), 0o644).map_err(on(HOSTNAME))
}

pub fn check_hosts(hosts: &[Host]) -> Result<(), Failure> {
    for host in hosts {
        let legal = |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#');
        if host.address.parse::<IpAddr>().is_err() || host.names.is_empty() || !host.names.iter().all(legal) {
            return Err(Failure::new("EINVAL", format!("hosts: {:?} {:?}", host.address, host.names)));
        }
    }
    Ok(())
}

/// Brings /etc/hosts up to date. What is not given (`None`) stays as it was configured before.
pub fn set_hosts(hostname: Option<&str>, hosts: Option<&[Host]>, files: &Files) -> Result<(), Failure> {
    let path = Path::new(HOSTS);
    let now = files.read(path);
    files.put(path, render(&now, hostname, hosts).as_bytes(), 0o644).map_err(on(HOSTS))
}

fn render(now: &str, hostname: Option<&str>, hosts: Option<&[Host]>) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut ours: Vec<String> = Vec::new();
    for line in now.lines() {
        let fields = line.split('#').next().unwrap_or("");
        let is_name = fields.split_ascii_whitespace().next() == Some("127.0.1.1");
        if line.ends_with(MARK) {
            if if is_name { hostname.is_none() } else { hosts.is_none() } {
                ours.push(line.to_string());
            }
        } else if !(is_name && hostname.is_some()) {
            kept.push(line.to_string());
        }
    }
    for (address, names) in [("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback")] {
        let present = kept.iter().any(|line| {
            let mut fields = line.split('#').next().unwrap_or("").split_ascii_whitespace();
            fields.next() == Some(address) && fields.any(|name| name == "localhost")
        });
        if !present {
            kept.push(format!("{address}\t{names}"));
        }
    }
    if let Some(name) = hostname {
        ours.insert(0, format!("127.0.1.1\t{name}\t{MARK}"));
    }
    for host in hosts.unwrap_or_default() {
        ours.push(format!("{}\t{}\t{MARK}", host.address, host.names.join(" ")));
    }
    kept.append(&mut ours);
    kept.join("\n") + "\n"
}

/// Replaces /etc/resolv.conf, which may be a link into /run.
pub fn set_resolvers(servers: &[String]) -> Result<(), Failure> {
    if let Some(wrong) = servers.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(Failure::new("EINVAL", format!("dns: {wrong:?} is not an IP address")));
    }
    let mut lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    // The forwarder before passt answers datagrams only: they are to be as long as they can.
    lines.push_str("options edns0\n");
    Files::default().put(Path::new(RESOLVERS), lines.as_bytes(), 0o644).map_err(on(RESOLVERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_are_replaced_and_others_kept() {
        let host = Host { address: "10.0.2.2".into(), names: vec!["host.banger".into(), "host".into()] };
        let first = render("127.0.0.1 localhost\n127.0.1.1 old\n1.2.3.4 mine # note\n", Some("one"), Some(&[host]));
        assert_eq!(
            first,
            "127.0.0.1 localhost\n1.2.3.4 mine # note\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             127.0.1.1\tone\t# banger\n10.0.2.2\thost.banger host\t# banger\n"
        );
        let second = render(&first, Some("two"), None);
        assert!(second.contains("two") && !second.contains("one\t") && second.contains("host.banger"));
        let third = render(&second, None, Some(&[]));
        assert!(third.contains("two") && !third.contains("host.banger"));
    }

    #[test]
    fn an_empty_file_gets_localhost() {
        let lines = render("", None, None);
        assert_eq!(lines, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        assert_eq!(render(&lines, None, None), lines);
    }
}
