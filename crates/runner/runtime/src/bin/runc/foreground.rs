//! Standing in for a container in the foreground: signals go to it, its terminal comes from it, its status is ours.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use spec::{Error, Result};
use sys::event::Signals;

use crate::relay::Relay;
use crate::terminal::HostTerminal;

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const USR1: i32 = 10;
const USR2: i32 = 12;
const ALRM: i32 = 14;
const TERM: i32 = 15;
const CHLD: i32 = 17;
const CONT: i32 = 18;
const WINCH: i32 = 28;

/// Signals read instead of being acted upon: all that have a meaning for the container, and our children's ends.
const SIGNALS: [i32; 10] = [HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CHLD, CONT, WINCH];

/// A process that is about to be waited for. Taken before the process is made, so that no signal is lost between.
#[derive(Debug)]
pub struct Foreground(Signals);

impl Foreground {
    /// Holds signals back from now on.
    pub fn take() -> Result<Self> {
        Ok(Self(Signals::take(&SIGNALS).map_err(failed)?))
    }

    /// Waits for the child `pid`, working its terminal `console` or its streams `relay` if it has any; its exit status
    /// as a shell reports it.
    pub fn wait(&self, pid: i32, console: Option<OwnedFd>, relay: Option<Relay>) -> Result<u8> {
        if let Some(relay) = relay {
            return self.wait_with(pid, relay);
        }
        let mut screen = console.map(Screen::new).transpose()?;
        loop {
            if let Some(status) = self.take_signals(pid, screen.as_ref())? {
                if let Some(screen) = &mut screen {
                    screen.drain();
                }
                return Ok(status);
            }
            match &mut screen {
                None => wait_for(&mut [PollFd::new(&self.0, PollFlags::IN)])?,
                Some(screen) => screen.turn(self.0.as_fd())?,
            }
        }
    }

    fn wait_with(&self, pid: i32, mut relay: Relay) -> Result<u8> {
        loop {
            if let Some(status) = self.take_signals(pid, None)? {
                relay.drain();
                return Ok(status);
            }
            relay.turn(self.0.as_fd())?;
        }
    }

    fn take_signals(&self, pid: i32, screen: Option<&Screen>) -> Result<Option<u8>> {
        while let Some(signal) = self.0.next().map_err(failed)? {
            match signal {
                CHLD => {
                    if let Some(status) = reap(pid)? {
                        return Ok(Some(status));
                    }
                }
                WINCH => {
                    if let Some(screen) = screen {
                        screen.resize();
                    }
                }
                // The process may just have ended; its SIGCHLD is on the way then.
                _ => drop(sys::process::kill(pid, signal)),
            }
        }
        Ok(None)
    }
}

/// Takes the status of every child that has ended (as subreaper we get the container's orphans too); that of `pid`.
fn reap(pid: i32) -> Result<Option<u8>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((child, status))) if child.as_raw_pid() == pid => {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                return Ok(Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(errno) => return Err(failed(errno_of(errno, "wait4"))),
        }
    }
}

/// A container's terminal on the user's.
struct Screen {
    console: OwnedFd,
    host: Option<HostTerminal>,
    /// Typed, and not yet taken by the container.
    pending: Vec<u8>,
    has_input: bool,
    has_output: bool,
}

impl Screen {
    fn new(console: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&console, true)
            .map_err(|errno| failed(errno_of(errno, "ioctl(FIONBIO)")))?;
        let host = HostTerminal::take()?;
        let screen = Self { console, host, pending: Vec::new(), has_input: true, has_output: true };
        screen.resize();
        Ok(screen)
    }

    fn resize(&self) {
        if let Some(host) = &self.host {
            host.resize(self.console.as_fd());
        }
    }

    /// Waits until something happens and moves what there is to move.
    fn turn(&mut self, signals: BorrowedFd<'_>) -> Result<()> {
        let stdin = std::io::stdin();
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.has_output);
        wanted.set(PollFlags::OUT, !self.pending.is_empty());
        let reads = self.has_input && self.pending.is_empty();
        let (readable, input) = {
            let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
            // A terminal whose other side is closed is always ready (POLLHUP): leave it out.
            if self.has_output {
                fds.push(PollFd::new(&self.console, wanted));
            }
            if reads {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            wait_for(&mut fds)?;
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            (self.has_output && ready(1), reads && ready(1 + usize::from(self.has_output)))
        };
        if input {
            self.read_input();
        }
        if readable {
            self.write_pending();
            self.drain();
        }
        Ok(())
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        match std::io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => self.has_input = false,
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                self.write_pending();
            }
        }
    }

    fn write_pending(&mut self) {
        match rustix::io::write(&self.console, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// Shows all that the container has written.
    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            match rustix::io::read(&self.console, &mut buffer) {
                Ok(0) => self.has_output = false,
                Ok(count) => {
                    let mut stdout = std::io::stdout().lock();
                    let shown = stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush());
                    if shown.is_ok() {
                        continue;
                    }
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                // EIO: no process has the other side open.
                Err(_) => self.has_output = false,
            }
            return;
        }
    }
}

pub fn wait_for(fds: &mut [PollFd<'_>]) -> Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(failed(errno_of(errno, "poll"))),
    }
}

fn errno_of(errno: Errno, call: &str) -> sys::Error {
    sys::Error::new(errno.raw_os_error(), call)
}

fn failed(error: sys::Error) -> Error {
    Error::internal(error.to_string())
}
