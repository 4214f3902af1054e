//! The files that say who this guest is: written in place, and where they are held open already, without opening them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files that are open already, by their paths. Any other file is opened.
#[derive(Default)]
pub struct Files(BTreeMap<PathBuf, File>);

impl Files {
    /// Holds a plain file open. What is not one (nothing there, a link, another name of a file) is left to `put`.
    pub fn hold(&mut self, path: &Path) -> io::Result<()> {
        if is_plain(path) {
            self.0.insert(path.to_path_buf(), open(path)?);
        }
        Ok(())
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// What is in a file now; nothing where there is none.
    pub fn read(&self, path: &Path) -> String {
        let bytes = match self.0.get(path) {
            Some(file) => file.metadata().and_then(|found| {
                let mut bytes = vec![0; found.len() as usize];
                file.read_exact_at(&mut bytes, 0).map(|()| bytes)
            }),
            None => fs::read(path),
        };
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Brings a file of ours up to date, with exactly this mode. A plain file is overwritten where it stands: in an emulated guest that has just gone
    /// on from a template every new path through the kernel costs milliseconds, and a file that a crash leaves half written is written again at the
    /// next start. Whatever else is there is replaced.
    pub fn put(&self, path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
        match self.0.get(path) {
            Some(file) => overwrite(file, contents, mode),
            None if is_plain(path) => overwrite(&open(path)?, contents, mode),
            None => replace(path, contents, mode),
        }
    }
}

fn is_plain(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn overwrite(file: &File, contents: &[u8], mode: u32) -> io::Result<()> {
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
    use super::Files;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("banger-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_plain_file_is_overwritten_and_anything_else_is_replaced() {
        let folder = folder("put");
        let files = Files::default();
        let path = folder.join("file");
        files.put(&path, b"a longer line\n", 0o444).expect("new");
        let inode = fs::metadata(&path).expect("there").ino();
        files.put(&path, b"short\n", 0o600).expect("changed");
        assert_eq!(fs::read(&path).expect("there"), b"short\n");
        let found = fs::metadata(&path).expect("there");
        assert_eq!((found.ino(), found.permissions().mode() & 0o7777), (inode, 0o600));
        let other = folder.join("other");
        fs::write(&other, "not ours").expect("written");
        fs::remove_file(&path).expect("removed");
        symlink(&other, &path).expect("a link");
        files.put(&path, b"ours\n", 0o644).expect("replaced");
        fs::remove_file(&path).expect("removed");
        fs::hard_link(&other, &path).expect("another name");
        files.put(&path, b"ours\n", 0o644).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"ours\n");
        assert_eq!(fs::read(&other).expect("there"), b"not ours");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_file_that_is_held_is_read_and_written_where_it_was_even_if_its_name_is_another_files_by_then() {
        let folder = folder("held");
        let path = folder.join("file");
        fs::write(&path, "as it was\n").expect("written");
        let mut files = Files::default();
        files.hold(&path).expect("held");
        files.hold(&folder.join("nothing")).expect("nothing to hold");
        assert_eq!(files.paths().collect::<Vec<_>>(), [path.as_path()]);
        files.put(&path, b"new\n", 0o644).expect("written");
        assert_eq!((files.read(&path), fs::read_to_string(&path).expect("there")), ("new\n".into(), "new\n".into()));
        fs::write(folder.join("users"), "the user's\n").expect("written");
        fs::rename(folder.join("users"), &path).expect("renamed");
        files.put(&path, b"late\n", 0o644).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "the user's\n");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
