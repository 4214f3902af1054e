//! `metrics`: how busy the guest is.

use crate::failure::{Failure, on};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn run() -> Result<Value, Failure> {
    let read = |path: &'static str| fs::read_to_string(path).map_err(on(path));
    let (uptime, load) = (read("/proc/uptime")?, read("/proc/loadavg")?);
    let (stat, memory) = (read("/proc/stat")?, read("/proc/meminfo")?);
    let numbers =
        |text: &str| -> Vec<f64> { text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect() };
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let total = |name| kilobytes(&memory, name);
    let (disk_total, disk_free) = disk("/")?;
    Ok(json!({
        "clock_ms": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        "uptime": numbers(&uptime).first(),
        "load": numbers(&load).get(..3),
        "cpus": cpus,
        "cpu_ns": cpu_times(&stat),
        "memory": {"total": total("MemTotal"), "available": total("MemAvailable"), "cached": total("Cached")},
        "disk": {"total": disk_total, "free": disk_free},
        "network": network(),
        "processes": load.split_ascii_whitespace().nth(3).and_then(|tasks| tasks.split('/').nth(1)?.parse::<u32>().ok()),
    }))
}

/// Bytes through the network cards since boot; bridges, tunnels and the like would count them again.
fn network() -> Option<Value> {
    let cards = fs::read_dir("/sys/class/net").ok()?.flatten().filter(|entry| entry.path().join("device").exists());
    let mut sum: Option<(u64, u64)> = None;
    for card in cards {
        let count = |name| {
            let text = fs::read_to_string(card.path().join("statistics").join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let (Some(received), Some(sent)) = (count("rx_bytes"), count("tx_bytes")) {
            let (before_received, before_sent) = sum.unwrap_or_default();
            sum = Some((before_received + received, before_sent + sent));
        }
    }
    sum.map(|(received, sent)| json!({"received": received, "sent": sent}))
}

/// A line of /proc/meminfo, in bytes.
fn kilobytes(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Times of all CPUs together since boot, in ns.
fn cpu_times(stat: &str) -> Value {
    // SAFETY: takes no memory. Ticks per second; 100 on every Linux.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or("");
    let fields: Vec<u64> = fields.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    let sum = |fields: &[Option<&u64>]| fields.iter().flatten().copied().sum::<u64>() * (1_000_000_000 / ticks);
    let at = |index| fields.get(index);
    // user nice system idle iowait irq softirq
    json!({"user": sum(&[at(0), at(1)]), "system": sum(&[at(2), at(5), at(6)]), "idle": sum(&[at(3), at(4)])})
}

/// Size and free space for programs of a file system, in bytes.
fn disk(path: &str) -> Result<(u64, u64), Failure> {
    let cpath = crate::sys::cstring(path)?;
    // SAFETY: an all-zero statvfs is valid and the call fills it.
    let (result, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(cpath.as_ptr(), &mut found), found)
    };
    if result < 0 {
        return Err(Failure::io(path, &io::Error::last_os_error()));
    }
    Ok((found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_that_tests_run_on_is_understood() {
        let found = run().expect("metrics");
        assert!(found["uptime"].as_f64().expect("uptime") > 0.0);
        assert_eq!(found["load"].as_array().expect("load").len(), 3);
        assert!(found["cpus"].as_u64().expect("cpus") >= 1);
        assert!(found["memory"]["total"].as_u64() > found["memory"]["available"].as_u64());
        assert!(found["disk"]["total"].as_u64() >= found["disk"]["free"].as_u64());
        assert!(found["network"].is_null() || found["network"]["received"].is_u64());
        assert!(found["processes"].as_u64().expect("processes") >= 1);
    }

    #[test]
    fn meminfo_names_are_matched_whole() {
        let memory = "MemTotalX: 1 kB\nMemTotal:     2048 kB\n";
        assert_eq!(kilobytes(memory, "MemTotal"), Some(2048 * 1024));
        assert_eq!(kilobytes(memory, "Cached"), None);
    }
}
