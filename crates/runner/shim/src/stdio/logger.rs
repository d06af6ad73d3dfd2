//! A logging program: it reads the container's output on descriptors 3 and 4 and says on 5 that it is ready.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::DupFlags;
use rustix::time::Timespec;
use sys::event::start_unblocked;

use super::uri::{Scheme, Uri};

/// The descriptors that a logging program expects: standard output, standard error, ready.
const EXPECTED: [i32; 3] = [3, 4, 5];

/// How long a logging program may take to get ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

thread_local! {
    /// The descriptors 3, 4 and 5 of this process, when [`reserve_descriptors`] has got them.
    static RESERVED: std::cell::RefCell<Vec<OwnedFd>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Takes the numbers 3, 4 and 5 before anything else does, so that they can be lent to logging programs.
///
/// # Errors
/// `/dev/null` cannot be opened.
pub fn reserve_descriptors() -> io::Result<()> {
    RESERVED.with_borrow_mut(|reserved| {
        loop {
            let fd = null()?;
            match fd.as_raw_fd() {
                // Standard files that were closed: fill them for good, or a later open lands there.
                0..=2 => std::mem::forget(fd),
                number if EXPECTED.contains(&number) => reserved.push(fd),
                _ => return Ok(()),
            }
        }
    })
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// A logging program at work.
#[derive(Clone, Copy, Debug)]
pub struct Logger {
    /// Its process id.
    pub pid: u32,
}

impl Logger {
    /// Starts the program of `uri`, which reads `stdout` and `stderr`, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, says nothing in time, or (`binary-v2`) ends without a word; it is killed.
    pub fn start(uri: &Uri, id: &str, namespace: &str, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let (ready, ready_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&uri.path);
        command.args(&uri.arguments).env_clear();
        command.env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        start_unblocked(&mut command);
        let child = lend([stdout, stderr, ready_end], || command.spawn())??;
        let logger = Self { pid: child.id() };
        logger.await_ready(&ready, uri.scheme == Scheme::BinaryV2).inspect_err(|_| logger.kill())?;
        Ok(logger)
    }

    /// Waits for one byte, or for the end of the pipe where that counts as a word.
    fn await_ready(self, ready: &OwnedFd, strict: bool) -> io::Result<()> {
        let limit = Timespec { tv_sec: READY_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        if poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "logging binary did not get ready in time"));
        }
        let count = rustix::io::read(ready, &mut [0_u8; 1])?;
        if strict && count == 0 {
            let text = "logging binary did not call ready (it may have crashed or exited prematurely)";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(())
    }

    /// Ends a program that did not end when its input did. It must not have been reaped yet.
    pub fn kill(self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) {
            // Gone already is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Runs `spawn` while `fds` are inheritable as 3, 4 and 5. One thread, so nobody else can inherit them.
fn lend<T>(fds: [OwnedFd; 3], spawn: impl FnOnce() -> T) -> io::Result<T> {
    RESERVED.with_borrow_mut(|reserved| {
        if reserved.len() != EXPECTED.len() {
            return Err(io::Error::other("descriptors 3 to 5 are not free"));
        }
        for (place, fd) in reserved.iter_mut().zip(&fds) {
            rustix::io::dup3(fd, place, DupFlags::empty())?;
        }
        drop(fds);
        let result = spawn();
        let null = null()?;
        for place in reserved.iter_mut() {
            rustix::io::dup3(&null, place, DupFlags::CLOEXEC)?;
        }
        Ok(result)
    })
}
