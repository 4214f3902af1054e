//! The `exec` operation: from a request to a running process and the descriptors that join it to its stream.

use crate::failure::Failure;
use crate::mux::stream::{Medium, Sink, Source};
use crate::ops::request::Exec;
use crate::process::environment::{Environment, candidates, environment};
use crate::process::spawn::{Plan, SpawnError, Spawner, Stage};
use crate::process::terminal;
use crate::sys;
use crate::users::UserDatabase;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// A started program.
pub struct Process {
    pub pid: i32,
    pub terminal: bool,
    pub sink: Sink,
    pub sources: [Option<Source>; 2],
}

/// Everything that starting a program needs and that lives longer than it.
pub struct Launcher {
    spawner: Spawner,
    users: UserDatabase,
    /// Defaults for every program, from `configure`.
    pub defaults: Environment,
    privileged: bool,
}

/// Both sides of the program's stdin, stdout and stderr.
struct Joints {
    /// The program's side, closed once it runs; a terminal needs one descriptor for all three.
    theirs: Vec<OwnedFd>,
    stdio: [RawFd; 3],
    sink: Sink,
    sources: [Option<Source>; 2],
}

impl Launcher {
    pub fn new() -> Launcher {
        // SAFETY: cannot fail.
        let privileged = unsafe { libc::geteuid() } == 0;
        Launcher { spawner: Spawner::new(), users: UserDatabase::default(), defaults: Environment::new(), privileged }
    }

    pub fn launch(&mut self, request: &Exec) -> Result<Process, Failure> {
        let Some(program) = request.argv.first() else {
            return Err(Failure::new("EINVAL", "argv is empty"));
        };
        let user = self.users.find(request.user.as_deref())?;
        let term = request.pty.as_ref().map(|pty| pty.term.as_deref().unwrap_or("xterm-256color"));
        let variables = environment(&user, term, &self.defaults, &request.env);
        let files = candidates(program, variables.get("PATH").map_or("", String::as_str));
        let joints = match &request.pty {
            Some(pty) => terminal_joints(pty.cols, pty.rows, user.uid, self.privileged)?,
            None => pipe_joints()?,
        };
        let cwd = request.cwd.as_deref().map(|cwd| cstring(cwd, "cwd")).transpose()?;
        let plan = Plan {
            programs: &cstrings(&files, "argv")?,
            argv: &cstrings(&request.argv, "argv")?,
            environment: &cstrings(variables.iter().map(|(key, value)| format!("{key}={value}")), "env")?,
            cwd: cwd.as_deref(),
            home: &cstring(&user.home, "home folder")?,
            uid: user.uid,
            gid: user.gid,
            groups: &user.groups,
            stdio: joints.stdio,
            terminal: request.pty.is_some(),
            privileged: self.privileged,
        };
        let pid = self.spawner.spawn(&plan).map_err(|error| explain(&error, request, &files))?;
        drop(joints.theirs);
        Ok(Process { pid, terminal: request.pty.is_some(), sink: joints.sink, sources: joints.sources })
    }
}

fn pipe_joints() -> io::Result<Joints> {
    let (stdin, to_stdin) = sys::pipe()?;
    let (from_stdout, stdout) = sys::pipe()?;
    let (from_stderr, stderr) = sys::pipe()?;
    for ours in [&to_stdin, &from_stdout, &from_stderr] {
        sys::set_nonblocking(ours.as_fd())?;
    }
    Ok(Joints {
        stdio: [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()],
        theirs: vec![stdin, stdout, stderr],
        sink: Sink { fd: to_stdin, medium: Medium::Pipe, watched: false },
        sources: [Some(Source::new(from_stdout, Medium::Pipe)), Some(Source::new(from_stderr, Medium::Pipe))],
    })
}

fn terminal_joints(cols: u16, rows: u16, uid: u32, privileged: bool) -> Result<Joints, Failure> {
    let (master, slave) = terminal::open(cols, rows).map_err(|error| Failure::io("pseudo terminal", &error))?;
    if privileged {
        terminal::give(slave.as_fd(), uid)?;
    }
    let reader = master.try_clone()?;
    Ok(Joints {
        stdio: [slave.as_raw_fd(); 3],
        theirs: vec![slave],
        sink: Sink { fd: master, medium: Medium::Terminal, watched: false },
        sources: [Some(Source::new(reader, Medium::Terminal)), None],
    })
}

fn cstring(text: &str, what: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new("EINVAL", format!("{what} contains a NUL byte")))
}

fn cstrings<S: AsRef<str>>(texts: impl IntoIterator<Item = S>, what: &str) -> Result<Vec<CString>, Failure> {
    texts.into_iter().map(|text| cstring(text.as_ref(), what)).collect()
}

/// What went wrong before the program ran, in words that name the culprit.
fn explain(error: &SpawnError, request: &Exec, files: &[String]) -> Failure {
    let program = &request.argv[0];
    let file = files.get(error.program).unwrap_or(program);
    match (error.stage, error.error.raw_os_error()) {
        (Stage::Setup, _) => Failure::io("cannot start a process", &error.error),
        (Stage::User, _) => {
            Failure::io(format!("cannot become user {:?}", request.user.as_deref().unwrap_or("root")), &error.error)
        }
        (Stage::Cwd, _) => {
            let cwd = request.cwd.as_deref().unwrap_or("/");
            Failure { code: "ECWD", ..Failure::io(format!("cannot enter the working folder {cwd:?}"), &error.error) }
        }
        (Stage::Exec, Some(libc::EACCES)) if std::path::Path::new(file).is_dir() => {
            Failure::new("EISDIR", format!("{file}: is a folder"))
        }
        (Stage::Exec, Some(libc::ENOENT)) if program.contains('/') && std::path::Path::new(file).exists() => {
            Failure::new("ENOENT", format!("{file}: its interpreter is not in the guest"))
        }
        (Stage::Exec, Some(libc::ENOENT)) => Failure::new("ENOENT", format!("{program}: not found")),
        (Stage::Exec, _) => Failure::io(file, &error.error),
    }
}
