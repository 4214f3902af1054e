//! Who a clone is, written down when somebody looks.
//!
//! A guest that goes on from a template must have a name, ids and keys of its own. Writing those files is most of what it would do before its first
//! command, and few commands read one. So the files are held (`hold`, in the template): opening one waits, by fanotify, until the clone has been told
//! who it is and has written them all. What was not looked at is written a moment later. Files that could not be written are never shown: whoever opens
//! one is refused (EPERM), and so is whatever the host asks of this guest.

use super::files::Files;
use crate::failure::{Failure, on};
use crate::sys::{self, check, own};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of stack of the thread that waits for the first look, and of the one that writes.
const STACK: usize = 256 * 1024;

pub type Job = Box<dyn FnOnce(&Files) -> Result<(), Failure> + Send>;

struct Held {
    files: Files,
    /// Its other end is the watching thread's: closed, it has nothing left to wait for.
    _watching: OwnedFd,
}

enum State {
    /// Nobody may open the files yet: who this guest is has not been said.
    Waiting(Held),
    /// Written at the first look.
    Told(Job, Held),
    Written,
    /// They say who another guest is, or nothing whole.
    Failed(Failure, Held),
}

struct Shared {
    state: Mutex<State>,
    told: Condvar,
    failed: AtomicBool,
}

/// Files that nobody but us can open before `tell` has been called and its job is done.
#[derive(Clone)]
pub struct Hold(Arc<Shared>);

impl Hold {
    /// Holds those of `paths` that are plain files.
    pub fn new(paths: &[&str]) -> Result<Hold, Failure> {
        let mut files = Files::default();
        for path in paths {
            files.hold(Path::new(path)).map_err(on(*path))?;
        }
        let group = group(&files).map_err(on("fanotify"))?;
        let (over, watching) = sys::pipe()?;
        let hold = Hold(Arc::new(Shared {
            state: Mutex::new(State::Waiting(Held { files, _watching: watching })),
            told: Condvar::new(),
            failed: AtomicBool::new(false),
        }));
        let watcher = hold.clone();
        std::thread::Builder::new().stack_size(STACK).spawn(move || watcher.watch(group, over))?;
        Ok(hold)
    }

    /// Says what is to be done with the files before they are shown: at the first look, or at `finish`.
    /// Gives it back where it was said before: these files are held no more.
    pub fn tell(&self, job: Job) -> Option<Job> {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Written) {
            State::Waiting(held) => State::Told(job, held),
            before => {
                *state = before;
                return Some(job);
            }
        };
        self.0.told.notify_all();
        None
    }

    /// Lets go of files that say already who this guest is: it stays who it was.
    pub fn let_go(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Waiting(_)) {
            *state = State::Written;
        }
        self.0.told.notify_all();
    }

    /// Does now what was told, if nobody has looked meanwhile; waits for it where it is being done. Fails again where that has failed.
    pub fn finish(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        let (after, done) = match std::mem::replace(&mut *state, State::Written) {
            State::Told(job, held) => match job(&held.files) {
                Ok(()) => (State::Written, Ok(())),
                Err(failure) => {
                    self.0.failed.store(true, Ordering::Relaxed);
                    crate::console::say(&format!("the guest's identity is not written: {}", failure.message));
                    (State::Failed(failure.clone(), held), Err(failure))
                }
            },
            State::Failed(failure, held) => (State::Failed(failure.clone(), held), Err(failure)),
            before => (before, Ok(())),
        };
        *state = after;
        done
    }

    /// As `finish`, beside whatever else goes on.
    pub fn finish_aside(&self) -> io::Result<()> {
        let hold = self.clone();
        std::thread::Builder::new().stack_size(STACK).spawn(move || hold.finish()).map(drop)
    }

    /// The files could not be written.
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first look, and then until there is something to be seen; or for `over`. The end of the group lets everybody go on who waits.
    fn watch(&self, group: OwnedFd, over: OwnedFd) {
        loop {
            let mut waits =
                [&group, &over].map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
            // SAFETY: the array is live, its length is beside it.
            while unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, -1) } < 0 {}
            if waits[0].revents == 0 {
                return;
            }
            let mut state = self.lock();
            while matches!(*state, State::Waiting(_)) {
                state = self.0.told.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if self.finish().is_ok() {
                return;
            }
            if let Err(error) = refuse(&group) {
                // Those who wait go on waiting: nothing is shown.
                crate::console::say(&format!("the guest's identity is held: {error}"));
            }
        }
    }
}

/// Refuses those who wait to open a file.
fn refuse(group: &OwnedFd) -> io::Result<()> {
    const EVENT: usize = size_of::<libc::fanotify_event_metadata>();
    let mut buffer = [0; 64 * EVENT];
    let count = sys::read(group.as_fd(), &mut buffer)?;
    for event in buffer[..count].chunks_exact(EVENT) {
        // SAFETY: the kernel writes whole events of this size, and no other kind was asked for.
        let event: libc::fanotify_event_metadata = unsafe { std::ptr::read_unaligned(event.as_ptr().cast()) };
        // SAFETY: the descriptor was opened for us alone.
        let _opened = unsafe { OwnedFd::from_raw_fd(event.fd as RawFd) };
        let answer = libc::fanotify_response { fd: event.fd, response: libc::FAN_DENY };
        // SAFETY: pointer and length are those of a live structure.
        let written = unsafe { libc::write(group.as_raw_fd(), (&raw const answer).cast(), size_of_val(&answer)) };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A group that is asked before any of the files is opened.
fn group(files: &Files) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let group = own(unsafe {
        libc::fanotify_init(
            libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC,
            (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as libc::c_uint,
        )
    })?;
    for path in files.paths() {
        let name = sys::cpath(path)?;
        // SAFETY: the path is NUL-terminated and outlives the call.
        check(unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                libc::FAN_MARK_ADD,
                libc::FAN_OPEN_PERM,
                libc::AT_FDCWD,
                name.as_ptr(),
            )
        })?;
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::Hold;
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc;

    /// As root only, as in a guest: others may not hold files.
    fn held(name: &str) -> Option<(std::path::PathBuf, Hold)> {
        let folder = std::env::temp_dir().join(format!("banger-hold-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("file");
        fs::write(&path, "before\n").expect("written");
        match Hold::new(&[path.to_str().expect("text"), "/nothing/here"]) {
            Ok(hold) => Some((path, hold)),
            Err(_) => {
                fs::remove_dir_all(&folder).expect("removed");
                None
            }
        }
    }

    fn job(path: &Path) -> super::Job {
        let path = path.to_path_buf();
        Box::new(move |files| files.put(&path, b"after\n", 0o644).map_err(Into::into))
    }

    #[test]
    fn a_look_waits_until_who_it_is_has_been_told() {
        let Some((path, hold)) = held("look") else { return };
        let (send, receive) = mpsc::channel();
        let looked = path.clone();
        let looker = std::thread::spawn(move || send.send(fs::read_to_string(looked)).expect("heard"));
        assert!(receive.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        assert!(hold.tell(job(&path)).is_none());
        assert_eq!(receive.recv().expect("read").expect("there"), "after\n");
        looker.join().expect("ended");
        hold.finish().expect("nothing left to do");
        assert!(hold.tell(job(&path)).is_some());
        fs::remove_dir_all(path.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn a_guest_that_stays_who_it_is_shows_its_files_as_they_were() {
        let Some((path, hold)) = held("let-go") else { return };
        let (send, receive) = mpsc::channel();
        let looked = path.clone();
        let looker = std::thread::spawn(move || send.send(fs::read_to_string(looked)).expect("heard"));
        assert!(receive.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        hold.let_go();
        assert_eq!(receive.recv().expect("read").expect("there"), "before\n");
        looker.join().expect("ended");
        assert!(hold.tell(job(&path)).is_some());
        fs::remove_dir_all(path.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn what_nobody_looks_at_is_written_when_it_is_finished_and_then_free() {
        let Some((path, hold)) = held("finish") else { return };
        assert!(hold.tell(job(&path)).is_none());
        hold.finish().expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "after\n");
        fs::remove_dir_all(path.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn what_could_not_be_written_is_shown_to_nobody() {
        let Some((path, hold)) = held("refused") else { return };
        assert!(hold.tell(Box::new(|_| Err(crate::failure::Failure::new("EIO", "no disk")))).is_none());
        assert!(!hold.has_failed());
        for _ in 0..3 {
            let refused = fs::read_to_string(&path).map_err(|error| error.kind());
            assert_eq!(refused, Err(std::io::ErrorKind::PermissionDenied));
        }
        assert!(hold.has_failed());
        assert_eq!(hold.finish().map_err(|failure| failure.code), Err("EIO"));
        assert!(hold.tell(job(&path)).is_some());
        fs::remove_dir_all(path.parent().expect("a folder")).expect("removed");
    }
}
