//! Signals as readable descriptors, for a process that lives in one event loop.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
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

#[cfg(test)]
mod tests {
    use super::*;

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
