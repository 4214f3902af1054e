//! The image's own services, kept still until a clone's first command has had its turn.
//!
//! A guest that goes on from a template finds all of its timers due and its clock set: its init, log and device managers would all run before the command
//! that it was made for. So they stand still in the template (the freezer of control groups), until it is their turn (turn.rs).

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where systemd mounts the one hierarchy of control groups.
const ROOT: &str = "/sys/fs/cgroup";
/// How long a group may take to stand still; one that takes longer does so by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Groups that stand still, until they are released.
pub struct Still(Vec<PathBuf>);

impl Still {
    /// Stops every process outside the root group; this one moves there first. Fails, and lets them all go on, where there is no such hierarchy.
    pub fn new() -> io::Result<Still> {
        Still::below(Path::new(ROOT))
    }

    fn below(root: &Path) -> io::Result<Still> {
        fs::write(root.join("cgroup.procs"), b"0")?;
        let mut still = Still(Vec::new());
        for entry in fs::read_dir(root)?.flatten() {
            let group = entry.path();
            if group.join("cgroup.freeze").exists() {
                fs::write(group.join("cgroup.freeze"), b"1")?;
                still.0.push(group);
            }
        }
        for group in &still.0 {
            wait_until_frozen(group)?;
        }
        Ok(still)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        for group in &self.0 {
            if let Err(error) = fs::write(group.join("cgroup.freeze"), b"0") {
                crate::console::say(&format!("{} stands still: {error}", group.display()));
            }
        }
    }
}

fn wait_until_frozen(group: &Path) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut events = File::open(group.join("cgroup.events"))?;
    loop {
        // The kernel tells of what has changed since this file was last read.
        let mut told = String::new();
        events.rewind()?;
        events.read_to_string(&mut told)?;
        if told.lines().any(|line| line == "frozen 1" || line == "populated 0") {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut wait = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one live structure.
        unsafe { libc::poll(&mut wait, 1, left.as_millis() as libc::c_int) };
    }
}

#[cfg(test)]
mod tests {
    use super::Still;
    use std::fs;

    #[test]
    fn groups_stand_still_until_they_are_released_also_when_one_cannot() {
        let root = std::env::temp_dir().join(format!("banger-still-{}", std::process::id()));
        let state = |name: &str| fs::read_to_string(root.join(name).join("cgroup.freeze")).expect("a group");
        for name in ["init.scope", "system.slice"] {
            fs::create_dir_all(root.join(name)).expect("a folder");
            fs::write(root.join(name).join("cgroup.freeze"), "0").expect("written");
            fs::write(root.join(name).join("cgroup.events"), "populated 1\nfrozen 1\n").expect("written");
        }
        fs::write(root.join("cgroup.procs"), "").expect("written");
        let still = Still::below(&root).expect("they stand still");
        assert_eq!((state("init.scope").as_str(), state("system.slice").as_str()), ("1", "1"));
        assert_eq!(fs::read_to_string(root.join("cgroup.procs")).expect("the root group"), "0");
        drop(still);
        assert_eq!((state("init.scope").as_str(), state("system.slice").as_str()), ("0", "0"));
        fs::remove_file(root.join("system.slice/cgroup.events")).expect("removed");
        assert!(Still::below(&root).is_err());
        assert_eq!((state("init.scope").as_str(), state("system.slice").as_str()), ("0", "0"));
        fs::remove_dir_all(&root).expect("removed");
    }
}
