//! What passes between this process and a plugin's: its configuration in, its result and its complaints out.
//!
//! Invariant: neither side waits for the other to read, and no more is kept than the bound.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// Most bytes of complaints that are kept; more are read and dropped.
const MOST_ERRORS: usize = 16 << 10;

/// How an exchange went.
pub enum Said {
    /// The program has ended, and can be waited for without waiting.
    Ended {
        /// Its standard output.
        output: Vec<u8>,
        /// The beginning of its standard error.
        errors: Vec<u8>,
    },
    /// It has not ended in time.
    Late,
    /// It wrote more than the bound.
    TooMuch,
}

/// The three pipes of a program, and the program.
pub struct Exchange<'a> {
    pidfd: OwnedFd,
    input: Option<File>,
    left: &'a [u8],
    output: Pipe,
    errors: Pipe,
    most: usize,
}

/// A pipe that is read until its end.
struct Pipe {
    file: Option<File>,
    read: Vec<u8>,
}

impl<'a> Exchange<'a> {
    /// Takes the pipes of `child`, to which `input` is to be written, and from which at most `most` bytes are taken.
    pub fn new(child: &mut Child, input: &'a [u8], most: usize) -> io::Result<Self> {
        let pidfd = sys::process::pidfd(i32::try_from(child.id()).unwrap_or(0))?;
        Ok(Self {
            pidfd,
            input: unblocked(child.stdin.take().map(OwnedFd::from))?,
            left: input,
            output: Pipe { file: unblocked(child.stdout.take().map(OwnedFd::from))?, read: Vec::new() },
            errors: Pipe { file: unblocked(child.stderr.take().map(OwnedFd::from))?, read: Vec::new() },
            most,
        })
    }

    /// Talks until the program has ended, or `deadline` has come.
    ///
    /// The program's end counts, not its pipes': a process that it left behind may hold those for ever.
    pub fn until(mut self, deadline: Instant) -> io::Result<Said> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.wait(left)?;
            self.write()?;
            self.output.take(self.most + 1)?;
            self.errors.take(MOST_ERRORS)?;
            if self.output.read.len() > self.most {
                return Ok(Said::TooMuch);
            }
            if ended {
                return Ok(Said::Ended { output: self.output.read, errors: self.errors.read });
            }
            if left.is_zero() {
                return Ok(Said::Late);
            }
        }
    }

    /// Waits until something can be done; says whether the program has ended.
    fn wait(&self, left: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        let pipes: [(Option<BorrowedFd<'_>>, PollFlags); 3] = [
            (self.input.as_ref().map(AsFd::as_fd), PollFlags::OUT),
            (self.output.file.as_ref().map(AsFd::as_fd), PollFlags::IN),
            (self.errors.file.as_ref().map(AsFd::as_fd), PollFlags::IN),
        ];
        fds.extend(pipes.into_iter().filter_map(|(fd, flags)| Some(PollFd::from_borrowed_fd(fd?, flags))));
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        while !self.left.is_empty() {
            match input.write(self.left) {
                Ok(length) => self.left = &self.left[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A program that does not want to know its configuration may still know what to do.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.input = None;
        Ok(())
    }
}

impl Pipe {
    /// Reads what is there, and keeps at most `most` bytes.
    fn take(&mut self, most: usize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut chunk = [0_u8; 8192];
        // Bounded, so that a program that writes faster than it is read does not keep the deadline from being seen.
        for _ in 0..32 {
            match file.read(&mut chunk) {
                Ok(0) => {
                    self.file = None;
                    return Ok(());
                }
                Ok(length) => {
                    let room = most.saturating_sub(self.read.len());
                    self.read.extend_from_slice(&chunk[..length.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn unblocked(fd: Option<OwnedFd>) -> io::Result<Option<File>> {
    let Some(fd) = fd else { return Ok(None) };
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Some(File::from(fd)))
}
