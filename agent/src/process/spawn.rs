//! From a prepared plan to a running process.
//!
//! The child borrows our memory until it executes (CLONE_VM | CLONE_VFORK, as posix_spawn does): no page tables are copied, and a failure
//! before execve is simply a value in the plan. In return the child makes system calls only, with its own stack.

use crate::sys;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::ptr;

/// Bytes of the child's stack; it is idle again when `spawn` returns.
const STACK: usize = 64 * 1024;
/// Open files that programs may have at once: what systemd gives its services.
pub const PROGRAM_FILES: libc::rlimit = libc::rlimit { rlim_cur: 1024, rlim_max: 524_288 };

pub struct Plan<'a> {
    /// Files to try, in order.
    pub programs: &'a [CString],
    pub argv: &'a [CString],
    pub environment: &'a [CString],
    /// Working folder; the program does not start without it.
    pub cwd: Option<&'a CStr>,
    /// Working folder if it is there, else `/`.
    pub home: &'a CStr,
    pub uid: u32,
    pub gid: u32,
    pub groups: &'a [u32],
    pub stdio: [RawFd; 3],
    /// `stdio[0]` becomes the controlling terminal.
    pub terminal: bool,
    /// The agent runs privileged: change user, limits and the OOM score. False only in tests as an ordinary user.
    pub privileged: bool,
}

/// How far the child came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Setup,
    User,
    Cwd,
    Exec,
}

#[derive(Debug)]
pub struct SpawnError {
    pub stage: Stage,
    pub error: io::Error,
    /// Index in `programs` of the file that could not be executed.
    pub program: usize,
}

/// The child's failure, written into memory it shares with us.
#[derive(Clone, Copy)]
struct Failed {
    stage: Stage,
    errno: i32,
    program: usize,
}

struct Shared<'a> {
    plan: &'a Plan<'a>,
    argv: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    failed: Option<Failed>,
}

/// Starts processes, one at a time, from one reusable stack.
pub struct Spawner {
    stack: Box<[u128]>,
    /// Opened at the first program, when this process is the one that stays.
    score: Option<OomScore>,
}

/// Our own OOM score, which the kernel gives to our children. Looking the file up anew in each child would be a twentieth of a clone's first command.
struct OomScore {
    file: File,
    ours: String,
}

impl OomScore {
    fn open() -> io::Result<OomScore> {
        let mut file = File::options().read(true).write(true).open("/proc/self/oom_score_adj")?;
        let mut ours = String::new();
        file.read_to_string(&mut ours)?;
        Ok(OomScore { file, ours })
    }

    /// Advisory: a program runs all the same where this fails.
    fn set(&self, score: &str) {
        let _ = (&self.file).write_all(score.as_bytes());
    }
}

impl Spawner {
    pub fn new() -> Spawner {
        Spawner { stack: vec![0; STACK / size_of::<u128>()].into_boxed_slice(), score: None }
    }

    /// Returns the process id once the program has been executed.
    pub fn spawn(&mut self, plan: &Plan) -> Result<i32, SpawnError> {
        let mut shared =
            Shared { plan, argv: pointers(plan.argv), environment: pointers(plan.environment), failed: None };
        if plan.privileged && self.score.is_none() {
            self.score = OomScore::open().ok();
        }
        let score = if plan.privileged { self.score.as_ref() } else { None };
        if let Some(score) = score {
            score.set("0");
        }
        // SAFETY: the child runs on `stack`, which nobody else uses, and we are suspended until it executes or exits, so all it
        // reads outlives it and its one write to `shared` races with nothing. All our signals are blocked: no handler runs in it.
        let pid = unsafe {
            let top = self.stack.as_mut_ptr_range().end;
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            libc::clone(child, top.cast(), flags, ptr::from_mut(&mut shared).cast())
        };
        if let Some(score) = score {
            score.set(&score.ours);
        }
        if pid < 0 {
            return Err(SpawnError { stage: Stage::Setup, error: io::Error::last_os_error(), program: 0 });
        }
        // SAFETY: the child has written through the pointer it was given; a volatile read sees it.
        let Some(failed) = (unsafe { ptr::read_volatile(&shared.failed) }) else {
            return Ok(pid);
        };
        // SAFETY: plain wait for our own child, which has called _exit.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        let error = io::Error::from_raw_os_error(failed.errno);
        Err(SpawnError { stage: failed.stage, error, program: failed.program })
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its live `Shared` and stays suspended while we use it.
    unsafe {
        let shared = argument.cast::<Shared>();
        let failed = run(&*shared);
        ptr::write_volatile(&raw mut (*shared).failed, Some(failed));
        libc::_exit(127)
    }
}

/// Returns only on failure. System calls by number where the C library's wrapper would involve other threads (set*id).
unsafe fn run(shared: &Shared) -> Failed {
    let plan = shared.plan;
    let fail = |stage| Failed { stage, errno: errno(), program: 0 };
    // SAFETY: every pointer comes from the plan and is NUL-terminated or has its length beside it.
    unsafe {
        if libc::setsid() < 0 {
            return fail(Stage::Setup);
        }
        for (target, source) in plan.stdio.into_iter().enumerate() {
            if libc::dup2(source, target as RawFd) < 0 {
                return fail(Stage::Setup);
            }
        }
        if plan.terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return fail(Stage::Setup);
        }
        if plan.privileged && !become_program(plan) {
            return fail(Stage::User);
        }
        match plan.cwd {
            Some(cwd) if libc::chdir(cwd.as_ptr()) < 0 => return fail(Stage::Cwd),
            None if libc::chdir(plan.home.as_ptr()) < 0 && libc::chdir(c"/".as_ptr()) < 0 => return fail(Stage::Cwd),
            _ => {}
        }
        sys::unblock_signals();
        execute(shared)
    }
}

/// Limits, groups and user of the program.
unsafe fn become_program(plan: &Plan) -> bool {
    // SAFETY: as in `run`.
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &PROGRAM_FILES);
        libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, plan.gid, plan.gid, plan.gid) == 0
            && libc::syscall(libc::SYS_setresuid, plan.uid, plan.uid, plan.uid) == 0
    }
}

/// Tries each file as execvp does: a file that is not there is passed over, one that may not be executed is remembered.
unsafe fn execute(shared: &Shared) -> Failed {
    let mut failed = Failed { stage: Stage::Exec, errno: libc::ENOENT, program: 0 };
    for (program, path) in shared.plan.programs.iter().enumerate() {
        // A look costs far less than an attempt, for which the kernel first makes an address space.
        // SAFETY: as in `run`; both vectors end with a null pointer.
        unsafe {
            if libc::access(path.as_ptr(), libc::F_OK) == 0 || errno() != libc::ENOENT {
                libc::execve(path.as_ptr(), shared.argv.as_ptr(), shared.environment.as_ptr());
            }
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => failed = Failed { errno: libc::EACCES, program, ..failed },
            other => {
                return Failed { errno: other, program, ..failed };
            }
        }
    }
    failed
}

fn errno() -> i32 {
    // SAFETY: the location is always valid.
    unsafe { *libc::__errno_location() }
}
