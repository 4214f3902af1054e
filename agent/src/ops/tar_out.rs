//! `tar_out`: a file or folder as a GNU tar stream.

use super::request::TarOut;
use super::transfer;
use super::worker::Desk;
use crate::failure::{Failure, on};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header, HeaderMode};

/// Bytes that a tar archive is made of.
const BLOCK: u64 = 512;
/// Bytes of a sector in `st_blocks`.
const SECTOR: u64 = 512;
/// Bytes of output gathered before they go into the pipe.
const BUFFER: usize = 128 * 1024;
/// Files from this many bytes on are spliced into the pipe; smaller ones go through the buffer with their headers.
const SPLICE_FROM: u64 = 64 * 1024;
/// Bytes spliced at once.
const CHUNK: u64 = 256 * 1024;

pub fn run(desk: &mut Desk, request: &TarOut) -> Result<Value, Failure> {
    let path = Path::new(&request.path);
    let metadata = fs::symlink_metadata(path).map_err(on(&request.path))?;
    let mut packer = Packer::new(desk)?;
    match request.name.as_deref() {
        Some(".") if metadata.is_dir() => packer.add_children(path, Path::new(""))?,
        Some(".") => return Err(Failure::new("ENOTDIR", format!("{}: is not a folder", request.path))),
        Some(name) => packer.add(path, Path::new(name), &metadata)?,
        None => {
            // Of "/" and ".." the path itself has no last name.
            let real = fs::canonicalize(path).map_err(on(&request.path))?;
            match path.file_name().or_else(|| real.file_name()) {
                Some(name) => packer.add(path, Path::new(name), &metadata)?,
                None => packer.add_children(path, Path::new(""))?,
            }
        }
    }
    packer.finish()
}

struct Packer<'a> {
    desk: &'a Desk,
    builder: Builder<BufWriter<File>>,
    /// First name of each file that has several, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
    entries: u64,
    /// Bytes of file contents.
    bytes: u64,
}

impl<'a> Packer<'a> {
    fn new(desk: &'a Desk) -> io::Result<Packer<'a>> {
        let mut builder = Builder::new(BufWriter::with_capacity(BUFFER, desk.output.try_clone()?));
        builder.follow_symlinks(false);
        builder.sparse(true);
        Ok(Packer { desk, builder, linked: HashMap::new(), entries: 0, bytes: 0 })
    }

    fn finish(mut self) -> Result<Value, Failure> {
        self.builder.finish()?;
        self.builder.get_mut().flush()?;
        Ok(json!({"entries": self.entries, "bytes": self.bytes}))
    }

    /// Adds `path` under `name`, and what is below it. What vanishes meanwhile is left out.
    fn add(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), Failure> {
        self.desk.check_cancelled()?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let subject = || on(path.display());
        if kind.is_dir() {
            let mut header = header(metadata);
            let mut folder = name.as_os_str().as_bytes().to_vec();
            folder.push(b'/');
            self.append(&mut header, Path::new(std::ffi::OsStr::from_bytes(&folder)), io::empty()).map_err(subject())?;
            return self.add_children(path, name);
        }
        if metadata.nlink() > 1
            && let Some(first) = self.linked.get(&(metadata.dev(), metadata.ino()))
        {
            let mut header = header(metadata);
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            self.entries += 1;
            return self.builder.append_link(&mut header, name, first).map_err(subject());
        }
        if kind.is_file() {
            self.add_file(path, name)?;
        } else {
            self.add_special(path, name, metadata).map_err(subject())?;
        }
        if metadata.nlink() > 1 {
            self.linked.insert((metadata.dev(), metadata.ino()), name.to_path_buf());
        }
        Ok(())
    }

    fn add_children(&mut self, path: &Path, name: &Path) -> Result<(), Failure> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(on(path.display()))?,
        };
        let mut children = entries.collect::<io::Result<Vec<_>>>().map_err(on(path.display()))?;
        children.sort_unstable_by_key(|child| child.file_name());
        for child in children {
            let path = child.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            self.add(&path, &name.join(child.file_name()), &metadata)?;
        }
        Ok(())
    }

    fn add_special(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = header(metadata);
        header.set_size(0);
        if metadata.is_symlink() {
            self.entries += 1;
            return self.builder.append_link(&mut header, name, fs::read_link(path)?);
        }
        header.set_device_major(libc::major(metadata.rdev()))?;
        header.set_device_minor(libc::minor(metadata.rdev()))?;
        self.append(&mut header, name, io::empty())
    }

    fn add_file(&mut self, path: &Path, name: &Path) -> Result<(), Failure> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(on(path.display()))?,
        };
        let add = |packer: &mut Packer, file: &mut File| -> io::Result<()> {
            let metadata = file.metadata()?;
            packer.bytes += metadata.size();
            if metadata.blocks() * SECTOR < metadata.size() {
                packer.entries += 1;
                return packer.builder.append_file(name, file);
            }
            packer.add_dense(file, name, &metadata)
        };
        add(self, &mut file).map_err(on(path.display()))
    }

    fn add_dense(&mut self, file: &mut File, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = header(metadata);
        let size = metadata.size();
        if size < SPLICE_FROM {
            let contents = Exactly { file, left: size };
            return self.append(&mut header, name, contents);
        }
        // The header alone; its contents follow without passing through our memory.
        self.append(&mut header, name, io::empty())?;
        let pipe = self.builder.get_mut();
        pipe.flush()?;
        let mut left = size;
        while left > 0 {
            self.desk.check_cancelled()?;
            match transfer::send(file, pipe.get_mut(), left.min(CHUNK) as usize)? {
                0 => break,
                moved => left -= moved as u64,
            }
        }
        // A file that has shrunk is filled up: its size is already written.
        let padding = left + (BLOCK - size % BLOCK) % BLOCK;
        io::copy(&mut io::repeat(0).take(padding), pipe).map(drop)
    }

    fn append(&mut self, header: &mut Header, name: &Path, contents: impl Read) -> io::Result<()> {
        self.entries += 1;
        self.builder.append_data(header, name, contents)
    }
}

fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(metadata, HeaderMode::Complete);
    // Without the bits of the file's type.
    header.set_mode(metadata.mode() & 0o7777);
    header
}

/// As many bytes as the header says, even when the file shrinks or grows meanwhile.
struct Exactly<'a> {
    file: &'a mut File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(self.left as usize);
        let mut count = self.file.read(&mut buffer[..want])?;
        if count == 0 {
            buffer[..want].fill(0);
            count = want;
        }
        self.left -= count as u64;
        Ok(count)
    }
}
