//! The host key that the host has pinned, and the key that may log in.

use super::files::Files;
use crate::failure::{Failure, on};
use crate::ops::request::Ssh;
use crate::sys::kill;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

pub const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
pub const HOST_KEY_PUBLIC: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
pub const AUTHORIZED_KEYS: &str = "/root/.ssh/authorized_keys";
const SERVERS: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];
/// Write permission of group and others: what sshd's StrictModes refuses on the way to authorized_keys.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Does nothing in an image without an ssh server.
pub fn install(ssh: &Ssh, files: &Files) -> Result<(), Failure> {
    let folder = Path::new("/etc/ssh");
    if !folder.is_dir() && !SERVERS.iter().any(|server| Path::new(server).exists()) {
        return Ok(());
    }
    make_folder(folder, 0o755).map_err(on("/etc/ssh"))?;
    remove_host_keys(folder).map_err(on("/etc/ssh"))?;
    let write = |path: &str, text: &str, mode| {
        let ended = if text.ends_with('\n') { text.to_string() } else { format!("{text}\n") };
        files.put(Path::new(path), ended.as_bytes(), mode).map_err(on(path))
    };
    write(HOST_KEY, &ssh.host_key, 0o600)?;
    write(HOST_KEY_PUBLIC, &ssh.host_key_public, 0o644)?;
    make_folder(Path::new("/root"), 0o700).map_err(on("/root"))?;
    tighten(Path::new("/root")).map_err(on("/root"))?;
    make_folder(Path::new("/root/.ssh"), 0o700).map_err(on("/root/.ssh"))?;
    fs::set_permissions("/root/.ssh", Permissions::from_mode(0o700)).map_err(on("/root/.ssh"))?;
    chown("/root/.ssh", Some(0), Some(0)).map_err(on("/root/.ssh"))?;
    let kept = files.read(Path::new(AUTHORIZED_KEYS));
    write(AUTHORIZED_KEYS, &with_our_keys(&kept, &ssh.authorized_keys), 0o600)?;
    reload_server().map_err(on("reload sshd"))
}

/// A server that runs already, as in a restored guest, has the host keys of its start in memory.
fn reload_server() -> io::Result<()> {
    let pid = fs::read_to_string("/run/sshd.pid").ok().and_then(|text| text.trim().parse::<i32>().ok());
    match pid {
        Some(pid) if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "sshd") => {
            kill(pid, libc::SIGHUP)
        }
        _ => Ok(()),
    }
}

/// Stands above each key of ours in authorized_keys.
const MARK: &str = "# added by banger at each start";

/// The file with our keys in place of those we added before; lines of the user's own are kept.
fn with_our_keys(file: &str, ours: &str) -> String {
    let mut result = String::new();
    let mut lines = file.lines();
    while let Some(line) = lines.next() {
        if line == MARK {
            lines.next();
        } else if !ours.lines().any(|key| key == line) {
            result.push_str(line);
            result.push('\n');
        }
    }
    for key in ours.lines().filter(|key| !key.trim().is_empty()) {
        result.push_str(&format!("{MARK}\n{key}\n"));
    }
    result
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(_) if path.is_dir() => Ok(()),
        other => other,
    }
}

/// Root's home belongs to root and nobody else may write to it.
fn tighten(home: &Path) -> io::Result<()> {
    let metadata = fs::metadata(home)?;
    if metadata.uid() != 0 || metadata.gid() != 0 {
        chown(home, Some(0), Some(0))?;
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        fs::set_permissions(home, Permissions::from_mode(metadata.mode() & 0o7777 & !WRITABLE_BY_OTHERS))?;
    }
    Ok(())
}

/// Keys of other types would be the same in all VMs of the image.
fn remove_host_keys(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The one that is ours is written over.
        if name.starts_with("ssh_host_ed25519_key") {
            continue;
        }
        if name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub")) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MARK, with_our_keys};

    #[test]
    fn an_empty_file_gets_our_key() {
        assert_eq!(with_our_keys("", "ssh-ed25519 A\n"), format!("{MARK}\nssh-ed25519 A\n"));
    }

    #[test]
    fn keys_of_the_user_are_kept_and_an_older_one_of_ours_is_replaced() {
        let before = format!("ssh-rsa USER me\n{MARK}\nssh-ed25519 OLD\n# note\n");
        let after = with_our_keys(&before, "ssh-ed25519 NEW");
        assert_eq!(after, format!("ssh-rsa USER me\n# note\n{MARK}\nssh-ed25519 NEW\n"));
        assert_eq!(with_our_keys(&after, "ssh-ed25519 NEW"), after);
    }
}
