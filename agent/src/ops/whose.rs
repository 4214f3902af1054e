//! `whose`: which process has a socket, by the port that it has of its own.

use crate::failure::Failure;
use crate::ops::listeners::{name_of, socket_in};
use crate::ops::request::{Proto, Whose};
use serde_json::{Value, json};
use std::fs;

pub fn run(request: &Whose) -> Result<Value, Failure> {
    let tables = match request.proto {
        Proto::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Proto::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    // A kernel without IPv6 has no second table.
    let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<u64> =
        tables.iter().flat_map(|table| table.lines()).filter_map(|line| inode_in(line, request)).collect();
    let owner = if inodes.is_empty() { None } else { find_owner(&inodes) };
    Ok(owner.map_or(json!({}), |(pid, process)| json!({"pid": pid, "process": process})))
}

/// Of a socket with that port of its own that is connected to the other one, or not connected.
fn inode_in(line: &str, request: &Whose) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (local, remote) = (port_of(fields.nth(1)?)?, port_of(fields.next()?)?);
    let inode = fields.nth(6)?.parse().ok()?;
    (local == request.port && (remote == request.to || remote == 0) && inode != 0).then_some(inode)
}

fn port_of(address: &str) -> Option<u16> {
    u16::from_str_radix(address.split_once(':')?.1, 16).ok()
}

/// The latest process that holds one of them: what has just been begun was begun by one that is not old, as a rule.
fn find_owner(inodes: &[u64]) -> Option<(u32, String)> {
    let entries = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable_by(|one, other| other.cmp(one));
    pids.into_iter().find_map(|pid| {
        // Processes end while we look.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        descriptors
            .flatten()
            .any(|descriptor| socket_in(&descriptor).is_some_and(|inode| inodes.contains(&inode)))
            .then(|| (pid, name_of(pid)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn ask(proto: Proto, port: u16, to: u16) -> Value {
        run(&Whose { proto, port, to }).expect("an answer")
    }

    #[test]
    fn a_socket_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let to = listener.local_addr().expect("an address").port();
        let stream = TcpStream::connect(("127.0.0.1", to)).expect("a connection");
        let port = stream.local_addr().expect("an address").port();
        let own = json!(std::process::id());
        assert_eq!(ask(Proto::Tcp, port, to)["pid"], own);
        assert_eq!(ask(Proto::Tcp, port, to.wrapping_add(1)), json!({}));
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = datagrams.local_addr().expect("an address").port();
        let found = ask(Proto::Udp, port, 53);
        assert_eq!(found["pid"], own);
        assert!(found["process"].as_str().is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn a_line_of_the_kernels_table_is_understood_or_passed_over() {
        let request = Whose { proto: Proto::Tcp, port: 0x8000, to: 80 };
        let line = |local: &str, remote: &str| {
            format!("   1: {local} {remote} 02 00000001:00000000 01:00000064 00000000  1000 0 4711 2 0 100 0 0 10 0")
        };
        assert_eq!(inode_in(&line("0F02000A:8000", "0101A8C0:0050"), &request), Some(4711));
        assert_eq!(inode_in(&line("0F02000A:8000", "00000000:0000"), &request), Some(4711));
        assert_eq!(inode_in(&line("0F02000A:8001", "0101A8C0:0050"), &request), None);
        assert_eq!(inode_in(&line("0F02000A:8000", "0101A8C0:0051"), &request), None);
        assert_eq!(inode_in("  sl  local_address rem_address   st tx_queue", &request), None);
        assert_eq!(inode_in("", &request), None);
    }
}
