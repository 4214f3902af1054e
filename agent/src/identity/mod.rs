//! Who this guest is: names, ids, keys, randomness.

pub mod entropy;
pub mod hosts;
pub mod ids;
pub mod ssh;

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Brings a file of ours up to date, with exactly this mode. A plain file is overwritten where it stands: in an emulated guest that has just gone on
/// from a template every new path through the kernel costs milliseconds, and a file that a crash leaves half written is written again at the next
/// start. Whatever else is there (nothing, a link, another name of a file) is replaced.
fn put(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let plain = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1);
    if !plain {
        return replace(path, contents, mode);
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let found = file.metadata()?;
    let mut now = vec![0; contents.len()];
    let same = found.len() == contents.len() as u64 && file.read_exact_at(&mut now, 0).is_ok() && now == contents;
    if !same {
        file.write_all_at(contents, 0)?;
        if found.len() > contents.len() as u64 {
            file.set_len(contents.len() as u64)?;
        }
    }
    if found.mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Puts a file in place at once, whatever is there now (a link too), with exactly this mode.
fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".banger");
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(|mut file| {
        file.write_all(contents)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::put;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_plain_file_is_overwritten_and_anything_else_is_replaced() {
        let folder = std::env::temp_dir().join(format!("banger-put-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("file");
        put(&path, b"a longer line\n", 0o444).expect("new");
        let inode = fs::metadata(&path).expect("there").ino();
        put(&path, b"short\n", 0o600).expect("changed");
        assert_eq!(fs::read(&path).expect("there"), b"short\n");
        let found = fs::metadata(&path).expect("there");
        assert_eq!((found.ino(), found.permissions().mode() & 0o7777), (inode, 0o600));
        let other = folder.join("other");
        fs::write(&other, "not ours").expect("written");
        fs::remove_file(&path).expect("removed");
        symlink(&other, &path).expect("a link");
        put(&path, b"ours\n", 0o644).expect("replaced");
        fs::remove_file(&path).expect("removed");
        fs::hard_link(&other, &path).expect("another name");
        put(&path, b"ours\n", 0o644).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"ours\n");
        assert_eq!(fs::read(&other).expect("there"), b"not ours");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
