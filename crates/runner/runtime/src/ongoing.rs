//! Verbs that take time, as state machines that never wait themselves.
//!
//! Whoever drives one waits for what it names: an event loop beside everything else that it serves, [`complete`] for a
//! program that has nothing else to do.
//!
//! Invariant: `advance` does not block on a process, whoever can stop it.

use std::os::fd::BorrowedFd;
use std::time::Instant;

pub use spec::time::deadline as after;

/// What a verb under way waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// Descriptor that becomes readable; `None` waits for the time alone.
    pub fd: Option<BorrowedFd<'a>>,
    /// The moment at which the verb is advanced in any case.
    pub until: Instant,
}

/// A verb under way.
pub trait Ongoing {
    /// What it ends with.
    type Output;

    /// What it waits for now.
    fn wait(&self) -> Wait<'_>;

    /// Does what can be done now; the verb's result once it is over. Not called again after that.
    fn advance(&mut self) -> Option<Self::Output>;

    /// Whether the child `pid` is one whose end this verb takes itself, or may be one that it does not know yet. A
    /// caller that takes the status of every child advances the verb first.
    fn awaits(&self, pid: i32) -> bool {
        let _ = pid; // most verbs have no children
        false
    }
}

/// Drives a verb to its end, blocking.
pub fn complete<T: Ongoing>(mut ongoing: T) -> T::Output {
    loop {
        if let Some(output) = ongoing.advance() {
            return output;
        }
        let wait = ongoing.wait();
        let left = wait.until.saturating_duration_since(Instant::now());
        match wait.fd {
            // A descriptor that cannot be polled makes no progress by being asked at once.
            Some(fd) if sys::process::readable(fd, left).is_ok() => {}
            _ => std::thread::sleep(left),
        }
    }
}
