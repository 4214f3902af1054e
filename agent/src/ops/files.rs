//! `stat` and `list`.

use super::request::{List, Stat};
use super::worker::Desk;
use crate::failure::{Failure, on};
use serde_json::{Map, Value, json};
use std::fs::{self, Metadata};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

pub fn stat(request: &Stat) -> Result<Value, Failure> {
    let path = Path::new(&request.path);
    let metadata = if request.follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let metadata = metadata.map_err(on(&request.path))?;
    Ok(Value::Object(describe(path, &metadata)))
}

/// Entries that vanish while the folder is read are left out.
pub fn list(desk: &mut Desk, request: &List) -> Result<Value, Failure> {
    let mut lines = BufWriter::with_capacity(64 * 1024, &mut desk.output);
    let mut count: u64 = 0;
    for entry in fs::read_dir(&request.path).map_err(on(&request.path))? {
        let entry = entry.map_err(on(&request.path))?;
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let mut fields = describe(&entry.path(), &metadata);
        fields.insert("name".into(), entry.file_name().to_string_lossy().into());
        serde_json::to_writer(&mut lines, &fields).map_err(std::io::Error::from)?;
        lines.write_all(b"\n")?;
        count += 1;
    }
    lines.flush()?;
    Ok(json!({"count": count}))
}

fn describe(path: &Path, metadata: &Metadata) -> Map<String, Value> {
    let kind = metadata.file_type();
    let name = match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_block_device() => "block",
        () if kind.is_char_device() => "char",
        () if kind.is_fifo() => "fifo",
        () => "socket",
    };
    let mut fields = Map::new();
    fields.insert("type".into(), name.into());
    fields.insert("size".into(), metadata.size().into());
    fields.insert("mode".into(), (metadata.mode() & 0o7777).into());
    fields.insert("uid".into(), metadata.uid().into());
    fields.insert("gid".into(), metadata.gid().into());
    fields.insert("mtime".into(), (metadata.mtime() as f64 + metadata.mtime_nsec() as f64 / 1e9).into());
    if kind.is_symlink()
        && let Ok(target) = fs::read_link(path)
    {
        fields.insert("target".into(), target.to_string_lossy().into());
    }
    fields
}
