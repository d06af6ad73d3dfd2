//! epoll, and the names by which its events come back.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use spec::error::{Error, Kind};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Somebody connects.
    Listener,
    /// A signal has come.
    Signals,
    /// A client.
    Connection(u32),
    /// A copy of a standard file.
    Stream(u32),
    /// A FIFO that somebody listens to an output by.
    Attachment(u32),
    /// A container ran out of memory.
    Oom(u32),
    /// The daemon's event service.
    Publisher,
    /// What a verb under way waits for.
    Job(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (class, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Publisher => (2, 0),
            Self::Connection(id) => (3, id),
            Self::Stream(id) => (4, id),
            Self::Oom(id) => (5, id),
            Self::Attachment(id) => (6, id),
            Self::Job(id) => (7, id),
        };
        class << 32 | u64::from(id)
    }

    /// Reads what [`Poll::add`] attached.
    pub fn unpack(data: u64) -> Self {
        let id = data as u32;
        match data >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Publisher,
            3 => Self::Connection(id),
            4 => Self::Stream(id),
            5 => Self::Oom(id),
            7 => Self::Job(id),
            _ => Self::Attachment(id),
        }
    }
}

/// The one epoll of the process. Level triggered: what is not dealt with comes again.
#[derive(Debug)]
pub struct Poll(OwnedFd);

impl Poll {
    /// A new epoll.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn new() -> Result<Self, Error> {
        epoll::create(CreateFlags::CLOEXEC).map(Self).map_err(|errno| failed("epoll_create", errno))
    }

    /// Watches `fd`; what happens comes back as `token`.
    ///
    /// # Errors
    /// It cannot be watched, as regular files cannot.
    pub fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<(), Error> {
        epoll::add(&self.0, fd, EventData::new_u64(token.pack()), flags)
            .map_err(|errno| failed("epoll_ctl(ADD)", errno))
    }

    /// Changes what is watched for.
    pub fn modify(&self, fd: impl AsFd, token: Token, flags: EventFlags) {
        // Only fails for a descriptor that is not watched, and then nothing is lost by not watching it.
        let _ = epoll::modify(&self.0, fd, EventData::new_u64(token.pack()), flags);
    }

    /// Stops watching. Needed before closing a descriptor of which a duplicate lives on.
    pub fn remove(&self, fd: impl AsFd) {
        // Not being watched is what is wanted.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for events or `deadline`.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn wait(&self, events: &mut Vec<Event>, deadline: Option<Instant>) -> Result<(), Error> {
        events.clear();
        let timeout = deadline.map(|deadline| {
            // A millisecond more than needed rather than one less, which would spin.
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(failed("epoll_wait", errno)),
        }
    }
}

fn failed(call: &str, errno: Errno) -> Error {
    Error::new(Kind::from_errno(errno.raw_os_error()), format!("{call}: {errno}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let all = [Token::Listener, Token::Signals, Token::Publisher, Token::Oom(u32::MAX)];
        let all = all.into_iter().chain([Token::Attachment(3), Token::Job(9)]);
        for token in all.chain([Token::Connection(7), Token::Stream(0)]) {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
