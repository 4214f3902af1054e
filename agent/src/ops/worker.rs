//! Blocking work (files, archives, sync) on a thread of its own, joined to its stream by pipes, so that the event loop treats
//! it just like a process with stdin and stdout.

use crate::failure::Failure;
use crate::sys;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of stack: the work keeps its buffers on the heap.
const STACK: usize = 256 * 1024;
/// Bytes a pipe holds: fewer switches between worker and loop than the default of 64 KiB.
const PIPE: i32 = 512 * 1024;

/// What the loop and the worker tell each other beside the bytes.
#[derive(Default)]
pub struct Shared {
    /// The host has sent END: the end of the input is the true end, not a lost connection.
    complete: AtomicBool,
    cancelled: AtomicBool,
    result: Mutex<Option<Result<Value, Failure>>>,
}

impl Shared {
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The worker's result, once its output has ended.
    pub fn take_result(&self) -> Result<Value, Failure> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.unwrap_or_else(|| Err(Failure::new("EIO", "the operation ended without a result")))
    }
}

/// The worker's side.
pub struct Desk {
    pub input: Input,
    pub output: File,
    shared: Arc<Shared>,
}

impl Desk {
    /// For long work without input: fails once the host has given up.
    pub fn check_cancelled(&self) -> io::Result<()> {
        check_cancelled(&self.shared)
    }
}

/// Bytes from the host. Its end is an error unless the host has said END.
pub struct Input {
    pipe: Option<File>,
    shared: Arc<Shared>,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        let count = pipe.read(buffer)?;
        check_cancelled(&self.shared)?;
        if count == 0 && !buffer.is_empty() && !self.shared.complete.load(Ordering::Acquire) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        Ok(count)
    }
}

fn check_cancelled(shared: &Shared) -> io::Result<()> {
    if shared.cancelled.load(Ordering::Acquire) { Err(io::Error::from_raw_os_error(libc::ECANCELED)) } else { Ok(()) }
}

/// The loop's side. `output` is at its end when the work is done.
pub struct Handle {
    pub input: Option<OwnedFd>,
    pub output: OwnedFd,
    pub shared: Arc<Shared>,
}

/// Starts `job` on a thread.
pub fn start<J>(takes_input: bool, job: J) -> io::Result<Handle>
where
    J: FnOnce(&mut Desk) -> Result<Value, Failure> + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    let (output_read, output_write) = sys::pipe()?;
    sys::set_nonblocking(output_read.as_fd())?;
    sys::set_pipe_size(output_read.as_fd(), PIPE);
    let (pipe, input) = if takes_input {
        let (read, write) = sys::pipe()?;
        sys::set_nonblocking(write.as_fd())?;
        sys::set_pipe_size(write.as_fd(), PIPE);
        (Some(File::from(read)), Some(write))
    } else {
        (None, None)
    };
    let mut desk = Desk {
        input: Input { pipe, shared: shared.clone() },
        output: File::from(output_write),
        shared: shared.clone(),
    };
    std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let result = job(&mut desk);
        *desk.shared.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        // Dropping the desk closes the output: the loop's signal that the result is there.
    })?;
    Ok(Handle { input, output: output_read, shared })
}
