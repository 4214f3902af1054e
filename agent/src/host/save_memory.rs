//! Saves the memory of a paused VM: only the pages that the VMM's process has of its own, over a copy of the file that it was started from.
//!
//! A VM's memory is mapped private, either anonymous (a cold boot) or from a saved file that other VMs share. `/proc/PID/pagemap` tells the pages
//! that were written; all others are still what that file holds, or zero. So a template, a snapshot and a snapshot of a clone are one operation,
//! and its time follows what the VM wrote, not how large it is.

use crate::sys::check;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

const PAGE: u64 = 4096;
/// Bytes of one entry of pagemap.
const ENTRY: u64 = 8;
/// Entries read at once: of 128 MiB of memory.
const ENTRIES: u64 = 32 * 1024;
/// Longest run copied at once, in bytes.
const RUN: u64 = 1024 * 1024;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// Of a file, or shared: not the process's own.
const SHARED: u64 = 1 << 61;

/// Writes the own pages of the mapping that is `size` bytes long into `target`, at their offset in the VM's memory. A target that has contents is
/// the base: what is zero now is made a hole in it. Returns the bytes that were written.
pub fn run(pid: u32, size: u64, target: &str) -> Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = find_mapping(&maps, size)?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(target)?;
    let has_base = file.metadata()?.len() > 0;
    file.set_len(size)?;
    let mut saver = Saver { memory, file, start, has_base, buffer: vec![0; RUN as usize], written: 0 };
    let mut entries = vec![0; (ENTRIES * ENTRY) as usize];
    let pages = size / PAGE;
    let mut page = 0;
    while page < pages {
        let count = ENTRIES.min(pages - page);
        let bytes = &mut entries[..(count * ENTRY) as usize];
        pagemap.read_exact_at(bytes, (start / PAGE + page) * ENTRY)?;
        for (first, length) in own_runs(bytes) {
            saver.save((page + first) * PAGE, length * PAGE)?;
        }
        page += count;
    }
    Ok(saver.written)
}

/// Address of the one private, writable mapping of this length.
fn find_mapping(maps: &str, size: u64) -> Result<u64> {
    let mut found = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        (to - from == size && rest.starts_with("rw-p")).then_some(from)
    });
    match (found.next(), found.next()) {
        (Some(start), None) => Ok(start),
        (None, _) => Err(Error::new(ErrorKind::NotFound, format!("no mapping of {size} bytes"))),
        _ => Err(Error::new(ErrorKind::InvalidData, format!("more than one mapping of {size} bytes"))),
    }
}

/// Runs of pages that the process has of its own: (first page, pages), relative to these entries.
fn own_runs(entries: &[u8]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (index, entry) in entries.chunks_exact(ENTRY as usize).enumerate() {
        let flags = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
        let own = flags & SWAPPED != 0 || (flags & PRESENT != 0 && flags & SHARED == 0);
        if !own {
            continue;
        }
        match runs.last_mut() {
            Some((first, length)) if *first + *length == index as u64 => *length += 1,
            _ => runs.push((index as u64, 1)),
        }
    }
    runs
}

struct Saver {
    memory: File,
    file: File,
    /// Address of the VM's memory in its VMM.
    start: u64,
    has_base: bool,
    buffer: Vec<u8>,
    written: u64,
}

impl Saver {
    /// Copies a run; pages of zeros become holes.
    fn save(&mut self, offset: u64, length: u64) -> Result<()> {
        let mut at = offset;
        while at < offset + length {
            let part = RUN.min(offset + length - at);
            let mut buffer = std::mem::take(&mut self.buffer);
            let saved = self
                .memory
                .read_exact_at(&mut buffer[..part as usize], self.start + at)
                .and_then(|()| self.write(&buffer[..part as usize], at));
            self.buffer = buffer;
            saved?;
            at += part;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut from = 0;
        while from < bytes.len() {
            let zero = is_zero(&bytes[from..from + PAGE as usize]);
            let mut to = from + PAGE as usize;
            while to < bytes.len() && is_zero(&bytes[to..to + PAGE as usize]) == zero {
                to += PAGE as usize;
            }
            if !zero {
                self.file.write_all_at(&bytes[from..to], offset + from as u64)?;
                self.written += (to - from) as u64;
            } else if self.has_base {
                punch_hole(&self.file, offset + from as u64, (to - from) as u64)?;
            }
            from = to;
        }
        Ok(())
    }
}

fn is_zero(page: &[u8]) -> bool {
    // SAFETY: any bytes are a valid u64.
    let (head, words, tail) = unsafe { page.align_to::<u64>() };
    words.iter().all(|word| *word == 0) && head.iter().chain(tail).all(|byte| *byte == 0)
}

fn punch_hole(file: &File, offset: u64, length: u64) -> Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is passed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{ENTRY, PRESENT, SHARED, SWAPPED, find_mapping, own_runs, run};
    use std::fs;
    use std::os::fd::AsRawFd;

    /// 3 MiB and a page: unlike anything that the process maps besides.
    const SIZE: usize = 3 * 1024 * 1024 + 4096;

    fn map(fd: i32, flags: i32) -> &'static mut [u8] {
        // SAFETY: a new mapping of SIZE bytes that nobody unmaps.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0);
            assert_ne!(start, libc::MAP_FAILED);
            // Like QEMU's memory: such a mapping is not merged with its neighbours.
            libc::madvise(start, SIZE, libc::MADV_DONTFORK);
            std::slice::from_raw_parts_mut(start.cast(), SIZE)
        }
    }

    #[test]
    fn own_pages_are_saved_over_the_base_and_zeroed_ones_become_holes() {
        let folder = std::env::temp_dir().join(format!("banger-save-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let (base, target) = (folder.join("base"), folder.join("target"));
        let mut expected = vec![0; SIZE];
        expected[0..4096].fill(1);
        expected[SIZE - 4096..].fill(2);
        expected[8192..12288].fill(3);
        fs::write(&base, &expected).expect("the base");
        fs::copy(&base, &target).expect("a copy");
        let file = fs::File::open(&base).expect("the base");
        let memory = map(file.as_raw_fd(), libc::MAP_PRIVATE);
        assert_eq!(memory[8192], 3, "read, so present, and not its own");
        memory[1_000_000] = 9;
        expected[1_000_000] = 9;
        memory[8192..12288].fill(0);
        expected[8192..12288].fill(0);
        let path = target.to_str().expect("a path");
        let written = run(std::process::id(), SIZE as u64, path).expect("saved");
        assert_eq!(written, 4096, "one page differs and is not zero");
        assert!(fs::read(&target).expect("the target") == expected);
        assert!(fs::read(&base).expect("the base")[1_000_000] == 0, "the base is never written");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn only_one_private_writable_mapping_of_the_length_will_do() {
        let maps =
            "1000-3000 rw-p 00000000 00:00 0\n5000-7000 r--p 00000000 00:00 0\n9000-a000 rw-p 00000000 00:00 0 \n";
        assert_eq!(find_mapping(maps, 0x2000).ok(), Some(0x1000));
        assert!(find_mapping(maps, 0x4000).is_err());
        assert!(find_mapping(&format!("{maps}20000-22000 rw-p 0 00:00 0\n"), 0x2000).is_err());
    }

    #[test]
    fn runs_are_of_own_pages_swapped_ones_too() {
        let flags = [0, PRESENT, PRESENT | SHARED, SWAPPED, PRESENT, 0, PRESENT];
        let bytes: Vec<u8> = flags.iter().flat_map(|entry: &u64| entry.to_ne_bytes()).collect();
        assert_eq!(bytes.len() as u64, flags.len() as u64 * ENTRY);
        assert_eq!(own_runs(&bytes), [(1, 1), (3, 2), (6, 1)]);
    }
}
