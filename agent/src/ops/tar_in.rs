//! `tar_in`: a tar stream unpacked below one folder, whatever the archive tries.

use super::request::TarIn;
use super::unpack::{Attributes, Node, Tree};
use super::worker::Desk;
use crate::failure::{Failure, on};
use serde_json::{Value, json};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// Folders whose attributes are set at the end: unpacking below one changes its times, and needs its write permission.
type Folders = Vec<(PathBuf, Attributes)>;

pub fn run(desk: &mut Desk, request: &TarIn) -> Result<Value, Failure> {
    let tree = Tree::open(Path::new(&request.path)).map_err(on(&request.path))?;
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let mut folders = Folders::new();
    let mut archive = Archive::new(&mut desk.input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let unpacked = unpack(&tree, &mut entry, request, &mut folders).map_err(on(&name))?;
        if let Some(size) = unpacked {
            entries += 1;
            bytes += size;
        }
    }
    for (path, attributes) in folders.iter().rev() {
        tree.set_attributes(path, attributes).map_err(on(path.display()))?;
    }
    // Whatever follows the archive's end is taken and dropped, up to the host's END.
    io::copy(&mut desk.input, &mut io::sink())?;
    Ok(json!({"entries": entries, "bytes": bytes}))
}

/// Unpacks one entry and returns the size of its contents; `None` when it is no file system object.
fn unpack<R: Read>(
    tree: &Tree,
    entry: &mut Entry<R>,
    request: &TarIn,
    folders: &mut Folders,
) -> io::Result<Option<u64>> {
    let path = Tree::relative(Path::new(std::ffi::OsStr::from_bytes(&entry.path_bytes())))?;
    let attributes = attributes(entry, request)?;
    let kind = entry.header().entry_type();
    if path.as_os_str().is_empty() {
        // The folder itself ("./"): it was there before the archive and keeps its attributes.
        return Ok(None);
    }
    let mut size = 0;
    match kind {
        EntryType::Directory => {
            tree.make_folder(&path)?;
            folders.push((path, attributes));
        }
        EntryType::Regular | EntryType::Continuous => size = tree.write_file(&path, entry, false, &attributes)?,
        EntryType::GNUSparse => size = tree.write_file(&path, entry, true, &attributes)?,
        EntryType::Symlink => tree.make_node(&path, &Node::Symlink(&link_name(entry)?), &attributes)?,
        EntryType::Link => tree.link(&path, &Tree::relative(&link_name(entry)?)?)?,
        EntryType::Fifo => tree.make_node(&path, &Node::Special(libc::S_IFIFO, 0), &attributes)?,
        EntryType::Char => tree.make_node(&path, &Node::Special(libc::S_IFCHR, device(entry)?), &attributes)?,
        EntryType::Block => tree.make_node(&path, &Node::Special(libc::S_IFBLK, device(entry)?), &attributes)?,
        _ => return Ok(None),
    }
    Ok(Some(size))
}

fn link_name<R: Read>(entry: &Entry<R>) -> io::Result<PathBuf> {
    let name = entry.link_name_bytes().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(&name)))
}

fn device<R: Read>(entry: &Entry<R>) -> io::Result<libc::dev_t> {
    let header = entry.header();
    Ok(libc::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

/// From the header and its PAX extensions. Some writers leave owner and time blank.
fn attributes<R: Read>(entry: &mut Entry<R>, request: &TarIn) -> io::Result<Attributes> {
    let header = entry.header();
    let mut attributes = Attributes {
        mode: header.mode()? & 0o7777,
        uid: request.uid.unwrap_or(header.uid().unwrap_or(0) as u32),
        gid: request.gid.unwrap_or(header.gid().unwrap_or(0) as u32),
        mtime: (header.mtime().unwrap_or(0) as i64, 0),
    };
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(attributes);
    };
    for extension in extensions {
        let extension = extension?;
        let Ok(value) = extension.value() else { continue };
        match extension.key() {
            Ok("uid") if request.uid.is_none() => attributes.uid = value.parse().unwrap_or(attributes.uid),
            Ok("gid") if request.gid.is_none() => attributes.gid = value.parse().unwrap_or(attributes.gid),
            Ok("mtime") => attributes.mtime = parse_time(value).unwrap_or(attributes.mtime),
            Ok("GNU.sparse.major" | "GNU.sparse.map" | "GNU.sparse.size") => {
                let message = "sparse files in PAX format are not supported: pack with --format=gnu";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            _ => {}
        }
    }
    Ok(attributes)
}

/// Seconds with a decimal fraction, as (s, ns).
fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, ns): (i64, i64) = (seconds.parse().ok()?, digits.parse().ok()?);
    // Before 1970 the fraction counts downwards.
    Some(if text.starts_with('-') && ns > 0 { (seconds - 1, 1_000_000_000 - ns) } else { (seconds, ns) })
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_keep_their_fraction() {
        assert_eq!(parse_time("12"), Some((12, 0)));
        assert_eq!(parse_time("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time("12.1234567899"), Some((12, 123_456_789)));
        assert_eq!(parse_time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(parse_time("soon"), None);
    }
}
