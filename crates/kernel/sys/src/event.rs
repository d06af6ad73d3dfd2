//! Signals as readable descriptors, for a process that lives in one event loop.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{io, ptr};

use crate::error::{Error, Result};

/// Blocked signals that are read instead of handled. `signalfd(2)`.
///
/// The mask is inherited over fork: whoever starts a process from here gives it an empty mask.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in this thread and opens a non-blocking descriptor that reads them.
    pub fn take(signals: &[i32]) -> Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given and cannot fail with a valid pointer.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: sigemptyset above has initialised the whole set.
        let mut set = unsafe { set.assume_init() };
        for &signal in signals {
            // SAFETY: `set` is an initialised signal set; an invalid number only makes the call fail.
            if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
                return Err(Error::last(format!("sigaddset({signal})")));
            }
        }
        // SAFETY: both pointers are to live values or null, as pthread_sigmask(3) allows.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if errno != 0 {
            return Err(Error::new(errno, format!("pthread_sigmask(SIG_BLOCK, {signals:?})")));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last(format!("signalfd({signals:?})")));
        }
        // SAFETY: signalfd has just returned this descriptor and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come, if one has.
    pub fn next(&self) -> Result<Option<i32>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = [0_u8; SIZE];
        match rustix::io::read(&self.0, &mut info) {
            // ssi_signo is the first field, a native u32.
            Ok(SIZE) => Ok(info.first_chunk().map(|head| u32::from_ne_bytes(*head) as i32)),
            Ok(_) => Ok(None),
            Err(errno) if errno.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(errno) => Err(Error::new(errno.raw_os_error(), "read(signalfd)")),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets the program of `command` start with no signal blocked.
///
/// std's own way of starting a program hands down the caller's mask, and a process that reads its signals from
/// [`Signals`] has blocked some: a shell that never hears of its children is the mildest of what follows.
pub fn start_unblocked(command: &mut Command) -> &mut Command {
    let unblock = || {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: `set` has just been initialised, and a null old set is allowed.
        match unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes two calls that signal-safety(7) allows, and allocates nothing.
    unsafe { command.pre_exec(unblock) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_starts_with_no_signal_blocked() {
        let signals = Signals::take(&[libc::SIGUSR2]).unwrap();
        let mut command = Command::new("/bin/cat");
        command.arg("/proc/self/status");
        let output = start_unblocked(&mut command).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let blocked = text.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        assert_eq!(blocked, "0000000000000000");
        drop(signals);
    }

    #[test]
    fn a_blocked_signal_is_read() {
        let signals = Signals::take(&[libc::SIGUSR1]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // SAFETY: raises a signal that this thread has just blocked.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(signals.next().unwrap(), Some(libc::SIGUSR1));
        assert_eq!(signals.next().unwrap(), None);
    }
}
