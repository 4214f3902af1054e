//! Who this guest is: names, ids, keys, randomness.

pub mod entropy;
pub mod hosts;
pub mod ids;
pub mod ssh;

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

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
