//! The console socket of runc's CLI: the program connects and sends the terminal's master side.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A socket that waits for one terminal; its file lives as long as it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `name` in `dir`, however long the path of `dir` is.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A socket address holds 107 bytes and a bundle's path may be longer; the way through /proc is short.
        let handle = fs::File::open(dir)?;
        let short = format!("/proc/self/fd/{}/{name}", handle.as_fd().as_raw_fd());
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Takes the terminal that the program, which has ended, sent.
    ///
    /// # Errors
    /// None came.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let (connection, _) = self.listener.accept()?;
        connection.set_nonblocking(true)?;
        let mut name = [0_u8; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&connection, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(fd) = fds.next()
            {
                return Ok(fd);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "no terminal came over the console socket"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // The bundle is removed as a whole later; this only keeps it tidy.
        let _ = fs::remove_file(&self.path);
    }
}
