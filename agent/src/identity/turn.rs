//! Whose turn it is in a clone: its first command's, then that of the image's services and of the files that say who it is.

use super::hold::{Hold, Job};
use super::still::Still;
use crate::console::say;
use crate::failure::Failure;
use crate::identity::files::Files;
use std::time::{Duration, Instant};

/// How long the files of a clone's identity wait for a first look before they are written all the same: its first command comes first.
const FILES_DELAY: Duration = Duration::from_millis(400);
/// How long the services of a clone stand still for a first command that neither ends nor has anything to do: it may be one that waits for them.
const SERVICES_DELAY: Duration = Duration::from_millis(150);
/// How long both wait for a first command, for its end if it always has something to do, and after its end: many clones at once take each other's time.
const QUIET: Duration = Duration::from_secs(2);
/// Most that those are multiplied with.
const CROWD_MAX: u32 = 10;

/// Nothing is held in a guest that is no clone.
#[derive(Default)]
pub struct Turn {
    files: Option<Hold>,
    /// When they are written, if nobody has looked before.
    files_due: Option<Instant>,
    services: Option<Still>,
    /// When they go on, if nothing has asked for them before and the first command, if that runs, waits too.
    services_due: Option<Instant>,
    /// When they go on in any case.
    services_last: Option<Instant>,
    /// A command has been run since this guest was told who it is.
    taken: bool,
    /// When the hold ends by itself: this guest is no clone, then.
    hold_due: Option<Instant>,
    /// Guests that share a CPU of the host with this one as they start: what takes one a moment takes many so much longer.
    crowd: u32,
}

impl Turn {
    /// Holds `files`, and the image's services where they are to be, until the clone is told who it is; with a limit, at most so long.
    pub fn hold(&mut self, files: &[&str], services: bool, limit: Option<Duration>) -> Result<(), Failure> {
        self.finish_files()?;
        self.files = Some(Hold::new(files)?);
        // Of a clone that is copied before its services went on: letting go of the former would free what this one holds.
        self.services_go_on();
        if services {
            self.services = Still::new().map_err(|error| say(&format!("services go on: {error}"))).ok();
        }
        self.hold_due = limit.map(|limit| Instant::now() + limit);
        Ok(())
    }

    /// Ends what `hold` began with a limit, in a guest that stays who it is.
    pub fn release(&mut self) {
        if self.hold_due.take().is_some() {
            if let Some(files) = self.files.take() {
                files.let_go();
            }
            self.services = None;
        }
    }

    /// This guest is being told who it is: the hold does not end by itself any more.
    pub fn begin(&mut self, crowd: Option<u32>) {
        self.hold_due = None;
        self.crowd = crowd.unwrap_or(1);
    }

    /// Says how the files are written: at once, or `lazy`, where they are held, at the first look or when it is their turn.
    pub fn tell(&mut self, job: Job, lazy: bool) -> Result<(), Failure> {
        let job = match &self.files {
            Some(files) => files.tell(job),
            None => Some(job),
        };
        match job {
            Some(job) => job(&Files::default()),
            None if lazy => {
                self.files_due = Some(self.after(QUIET));
                Ok(())
            }
            None => self.finish_files(),
        }
    }

    /// It knows who it is: its first command may come. Before, there was nobody whose command could come first.
    pub fn wait_for_command(&mut self) {
        self.taken = false;
        self.wait_with_services();
    }

    /// A command is to run: the services go on a moment after the first, and before any other.
    pub fn command_begins(&mut self) {
        self.files_due = self.files_due.map(|due| due.min(self.after(FILES_DELAY)));
        match self.services_due {
            Some(_) if self.taken => self.services_go_on(),
            Some(due) => {
                self.services_due = Some(due.min(Instant::now() + SERVICES_DELAY));
                self.services_last = Some(self.after(QUIET));
            }
            None => return,
        }
        self.taken = true;
    }

    /// The first command has had its turn, if nobody asks for a second.
    pub fn command_ended(&mut self) {
        if self.taken {
            self.wait_with_services();
        }
    }

    /// Lets the image's services go on: something asks for what they may serve.
    pub fn services_go_on(&mut self) {
        (self.services, self.services_due) = (None, None);
    }

    /// Writes who this guest is, where that waits for the first look.
    pub fn finish_files(&mut self) -> Result<(), Failure> {
        self.files_due = None;
        self.files.as_ref().map_or(Ok(()), Hold::finish)
    }

    /// It could not become who it is.
    pub fn has_failed(&self) -> bool {
        self.files.as_ref().is_some_and(Hold::has_failed)
    }

    /// When `pass` is to be called.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        [self.files_due, self.services_due, self.hold_due].into_iter().flatten()
    }

    /// Does what is due.
    pub fn pass(&mut self) {
        let over = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        if over(self.files_due) {
            self.files_due = None;
            if let Some(Err(error)) = self.files.as_ref().map(Hold::finish_aside) {
                // It is written at the first look, then.
                say(&format!("the guest's identity is not written yet: {error}"));
            }
        }
        if over(self.services_due) {
            if over(self.services_last) || !others_run() {
                self.services_go_on();
            } else {
                self.services_due = self.services_last.map(|last| last.min(Instant::now() + SERVICES_DELAY));
            }
        }
        if over(self.hold_due) {
            self.release();
        }
    }

    fn wait_with_services(&mut self) {
        self.services_due = self.services.as_ref().map(|_| self.after(QUIET));
        self.services_last = self.services_due;
    }

    fn after(&self, wait: Duration) -> Instant {
        Instant::now() + wait * self.crowd.clamp(1, CROWD_MAX)
    }
}

/// Whether the guest has anything to run but this thread. By the clock alone nobody can tell a command that waits from one that the host has no time for.
fn others_run() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    runnable(&load).is_some_and(|count| count > 1)
}

/// `0.20 0.18 0.12 1/80 11206`: the first of the pair.
fn runnable(load: &str) -> Option<u32> {
    load.split_ascii_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{CROWD_MAX, QUIET, Turn, runnable};
    use std::time::Instant;

    #[test]
    fn waits_are_longer_in_a_crowd_but_not_without_end() {
        for (crowd, times) in [(None, 1), (Some(0), 1), (Some(3), 3), (Some(u32::MAX), CROWD_MAX)] {
            let mut turn = Turn::default();
            turn.begin(crowd);
            let before = Instant::now();
            let due = turn.after(QUIET);
            assert!(due >= before + QUIET * times && due <= Instant::now() + QUIET * times, "{crowd:?}");
        }
    }

    #[test]
    fn what_the_kernel_says_of_its_load_is_read() {
        assert_eq!(runnable("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(runnable(""), None);
        assert_eq!(runnable("0 0 0 x"), None);
    }

    #[test]
    fn a_guest_that_is_no_clone_waits_for_nothing() {
        let mut turn = Turn::default();
        turn.begin(None);
        turn.wait_for_command();
        turn.command_begins();
        turn.command_ended();
        assert!(turn.due().next().is_none());
        turn.pass();
        assert!(!turn.has_failed());
    }
}
