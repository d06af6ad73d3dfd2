//! Streams of a container whose user may not open the caller's: pipes that are the user's, copied to and from them.
//!
//! A program opens `/dev/stderr` anew, which the kernel allows to the owner of the file behind it. The caller's file
//! belongs to nobody in a user namespace, and a pipe made here can be given to the namespace's root.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use spec::{Error, Result};

use crate::foreground::wait_for;

/// This side of the three pipes.
#[derive(Debug)]
pub struct Relay {
    /// Where input goes; `None` once there is no more.
    input: Option<OwnedFd>,
    /// Read, and not yet taken by the container.
    pending: Vec<u8>,
    /// What the container writes; `None` once it has ended.
    outputs: [Option<OwnedFd>; 2],
}

impl Relay {
    /// Pipes whose files belong to `uid` and `gid`, and the container's side of them.
    pub fn open(uid: u32, gid: u32) -> Result<(Self, runtime::Stdio)> {
        let pipe = || -> Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|errno| failed("pipe", errno))?;
            rustix::fs::fchown(&reader, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|errno| failed("chown pipe", errno))?;
            Ok((reader, writer))
        };
        let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
        for ours in [&input, &output, &errors] {
            rustix::io::ioctl_fionbio(ours, true).map_err(|errno| failed("ioctl(FIONBIO)", errno))?;
        }
        let relay = Self { input: Some(input), pending: Vec::new(), outputs: [Some(output), Some(errors)] };
        let stdio = runtime::Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        Ok((relay, stdio))
    }

    /// Waits until something happens and moves what there is to move.
    pub fn turn(&mut self, signals: BorrowedFd<'_>) -> Result<()> {
        let stdin = std::io::stdin();
        let reads = self.input.is_some() && self.pending.is_empty();
        let ready = {
            let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
            fds.extend(self.outputs.iter().flatten().map(|output| PollFd::new(output, PollFlags::IN)));
            match (&self.input, reads) {
                (Some(_), true) => fds.push(PollFd::new(&stdin, PollFlags::IN)),
                (Some(input), false) => fds.push(PollFd::new(input, PollFlags::OUT)),
                (None, _) => {}
            }
            wait_for(&mut fds)?;
            self.input.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty())
        };
        if ready && reads {
            self.read_input();
        }
        if ready {
            self.write_pending();
        }
        self.drain();
        Ok(())
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        match std::io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => self.input = None,
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
        }
    }

    fn write_pending(&mut self) {
        let Some(input) = &self.input else { return };
        match rustix::io::write(input, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // No process reads it any more.
            Err(_) => (self.input, self.pending) = (None, Vec::new()),
        }
    }

    /// Shows all that the container has written.
    pub fn drain(&mut self) {
        let [output, errors] = &mut self.outputs;
        copy(output, &mut std::io::stdout().lock());
        copy(errors, &mut std::io::stderr().lock());
    }
}

/// Copies what `from` has to `to`; an end of either ends the stream.
fn copy(from: &mut Option<OwnedFd>, to: &mut impl Write) {
    let mut buffer = [0; 8192];
    while let Some(reader) = from {
        match rustix::io::read(reader.as_fd(), &mut buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Ok(count @ 1..) if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok() => {}
            Ok(_) | Err(_) => *from = None,
        }
    }
}

fn failed(call: &str, errno: Errno) -> Error {
    Error::internal(sys::Error::new(errno.raw_os_error(), call).to_string())
}
