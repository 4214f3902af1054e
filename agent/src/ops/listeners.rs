//! `listeners`: sockets that wait for connections or for datagrams of anybody, and whose they are.

use crate::failure::Failure;
use crate::ops::worker::Desk;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

/// Between two looks of `watch`.
const INTERVAL: Duration = Duration::from_millis(100);

/// State of a socket that waits, in /proc/net/tcp and in /proc/net/udp, where it is one that is connected to nobody.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    proto: &'static str,
    address: String,
    port: u16,
    inode: u64,
}

/// `udp`: those that wait for datagrams too.
pub fn run(udp: bool) -> Result<Value, Failure> {
    Ok(describe(&read_tables(udp)))
}

fn read_tables(udp: bool) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for proto in if udp { &["tcp", "tcp6", "udp", "udp6"][..] } else { &["tcp", "tcp6"] } {
        // A kernel without IPv6 has no tables of it.
        let table = fs::read_to_string(format!("/proc/net/{proto}")).unwrap_or_default();
        listeners.extend(table.lines().filter_map(|line| parse(proto, line)));
    }
    listeners
}

fn describe(listeners: &[Listener]) -> Value {
    let mut owners: HashMap<u64, Option<(u32, String)>> = listeners.iter().map(|found| (found.inode, None)).collect();
    if !owners.is_empty() {
        find_owners(&mut owners);
    }
    let listeners: Vec<Value> = listeners
        .iter()
        .map(|found| {
            let mut entry = json!({
                "proto": found.proto, "address": found.address, "port": found.port, "inode": found.inode,
            });
            if let Some(Some((pid, process))) = owners.get(&found.inode) {
                entry["pid"] = json!(pid);
                entry["process"] = json!(process);
            }
            entry
        })
        .collect();
    json!({"listeners": listeners})
}

/// Writes a line like the result of `run` now and after each change, until the host gives up. The kernel tells nobody of a new listener, so
/// its tables are looked at often; whose a socket is, is looked up only after a change.
pub fn watch(desk: &mut Desk, udp: bool) -> Result<Value, Failure> {
    let mut known = None;
    loop {
        desk.check_cancelled()?;
        let found = read_tables(udp);
        if known.as_ref() != Some(&found) {
            let mut line = describe(&found).to_string();
            line.push('\n');
            desk.output.write_all(line.as_bytes())?;
            known = Some(found);
        }
        thread::sleep(INTERVAL);
    }
}

/// The first process that holds each socket.
fn find_owners(owners: &mut HashMap<u64, Option<(u32, String)>>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // Processes end while we look.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if let Some(owner @ None) = socket_in(&descriptor).and_then(|inode| owners.get_mut(&inode)) {
                *owner = Some((pid, name_of(pid)));
            }
        }
    }
}

/// Its inode, where a descriptor of a process is a socket.
pub fn socket_in(descriptor: &fs::DirEntry) -> Option<u64> {
    let target = fs::read_link(descriptor.path()).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

pub fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_string()
}

fn parse(proto: &'static str, line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    if state != if proto.starts_with("udp") { UNCONNECTED } else { LISTEN } {
        return None;
    }
    // A datagram socket that has no port yet waits for nothing.
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)?;
    Some(Listener { proto, address: parse_address(address)?, port, inode })
}

/// The kernel prints each 32-bit word of the address in the machine's byte order.
fn parse_address(hex: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_lines_are_understood() {
        let tcp =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 12345 1 0 100 0 0 10 0";
        let expected = Listener { proto: "tcp", address: "127.0.0.1".into(), port: 8080, inode: 12345 };
        assert_eq!(parse("tcp", tcp), Some(expected));
        let tcp6 = "   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 77 1 0";
        let found = parse("tcp6", tcp6).expect("a listener");
        assert_eq!((found.address.as_str(), found.port, found.inode), ("::1", 22, 77));
        let udp = "  512: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 4711 2 0 0";
        let expected = Listener { proto: "udp", address: "0.0.0.0".into(), port: 53, inode: 4711 };
        assert_eq!(parse("udp", udp), Some(expected));
    }

    #[test]
    fn others_are_passed_over() {
        let established = "   0: 0100007F:1F90 0100007F:0001 01 00000000:00000000 00:00000000 00000000  0 0 12345 1";
        assert_eq!(parse("tcp", established), None);
        assert_eq!(
            parse(
                "tcp",
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            ),
            None
        );
        assert_eq!(parse("tcp", ""), None);
        // A client's, connected; and one that has sent nothing yet.
        for udp in [
            "   1: 0100007F:C000 0100007F:0035 01 00000000:00000000 00:00000000 00000000  0 0 4712 2 0 0",
            "   2: 00000000:0000 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 4713 2 0 0",
        ] {
            assert_eq!(parse("udp", udp), None);
        }
    }
}
