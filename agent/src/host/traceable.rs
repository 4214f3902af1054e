//! Runs a program whose memory the user's other processes may read where the kernel (Yama) allows that to parents only: the VMM of a VM that is to
//! be saved by a daemon that did not start it.

use std::ffi::CStr;
use std::io;

/// Replaces this process by the program. Returns only on failure.
pub fn exec(argv: &[&CStr]) -> io::Error {
    let Some(program) = argv.first() else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let anyone: libc::c_ulong = libc::PR_SET_PTRACER_ANY;
    // SAFETY: the vector ends in a null pointer, its strings outlive the call. A kernel without Yama refuses the first call, and needs it not.
    unsafe {
        libc::prctl(libc::PR_SET_PTRACER, anyone, 0, 0, 0);
        libc::execvp(program.as_ptr(), pointers.as_ptr());
    }
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("{}: {error}", program.to_string_lossy()))
}
