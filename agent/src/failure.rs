//! The one error that crosses the protocol: an errno name and a sentence.

use serde_json::{Value, json};
use std::fmt::Display;
use std::io;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// `error` of something done to `subject`.
    pub fn io(subject: impl Display, error: &io::Error) -> Failure {
        Failure { code: code_of(error), message: format!("{subject}: {}", describe(error)) }
    }

    pub fn to_json(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message}})
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure { code: code_of(&error), message: describe(&error) }
    }
}

/// For `.map_err(on("/some/path"))`.
pub fn on<S: Display>(subject: S) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::io(subject, &error)
}

/// The error's text without Rust's "(os error N)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

fn code_of(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(errno) => errno_name(errno),
        None => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => "EINVAL",
            io::ErrorKind::UnexpectedEof => "EPIPE",
            _ => "EIO",
        },
    }
}

/// The symbolic name of `errno`; `EIO` for one that nothing here can meet.
pub fn errno_name(errno: i32) -> &'static str {
    macro_rules! names {
        ($($name:ident)*) => { match errno { $(libc::$name => stringify!($name),)* _ => "EIO" } };
    }
    names!(
        EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
        ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
        ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP ENODATA EPROTO EOVERFLOW ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTONOSUPPORT
        EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN
        ENOTCONN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED EUCLEAN
    )
}
