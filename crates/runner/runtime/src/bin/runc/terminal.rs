//! The user's terminal while a container has one of its own.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use spec::{Error, Result};

/// The user's terminal in raw mode; dropping it gives it back as it was.
#[derive(Debug)]
pub struct HostTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl HostTerminal {
    /// Puts the user's terminal into raw mode, if there is one.
    pub fn take() -> Result<Option<Self>> {
        let Some(fd) = find() else { return Ok(None) };
        let failed = |errno: rustix::io::Errno| {
            Error::internal(format!(
                "failed to set the terminal: {}",
                sys::error::words(errno.raw_os_error())
            ))
        };
        let before = tcgetattr(&fd).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Line ends are still this terminal's business; the container's leaves them alone.
        raw.output_modes |= OutputModes::OPOST;
        tcsetattr(&fd, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self { fd, before }))
    }

    /// Gives `console` the size of the user's terminal.
    pub fn resize(&self, console: BorrowedFd<'_>) {
        // Sizes are cosmetic: a terminal that has none keeps what it has.
        if let Ok(size) = tcgetwinsize(&self.fd) {
            let _ = sys::pty::resize(console, size.ws_col, size.ws_row);
        }
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.fd, OptionalActions::Now, &self.before);
    }
}

fn find() -> Option<OwnedFd> {
    let (stderr, stdout, stdin) = (std::io::stderr(), std::io::stdout(), std::io::stdin());
    let standard = [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()];
    let found = standard.into_iter().find(|fd| isatty(fd)).and_then(|fd| fd.try_clone_to_owned().ok());
    found.or_else(|| File::options().read(true).write(true).open("/dev/tty").ok().map(OwnedFd::from))
}
