//! The process that holds a new scope open.
//!
//! Systemd refuses a scope without a process and removes one that has become empty; init is to be born in the scope,
//! because the root of its cgroup namespace is the cgroup that it is born in. So a child that does nothing is the
//! scope's first process, until init is there.

use std::os::fd::{AsFd, OwnedFd};

use sys::process::{self, Clone3, Fork};

use crate::create::reap;

const SIGKILL: i32 = 9;

/// A child that waits to be killed.
#[derive(Debug)]
#[must_use = "it ends only when it is released"]
pub struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
    /// What it reads from, and which says nothing.
    _silence: OwnedFd,
}

impl Placeholder {
    /// Makes it. It ends with its parent too, should that be killed.
    pub fn new() -> Result<Self, sys::Error> {
        let (silence, theirs) = sys::socket::message_pair()?;
        match process::fork(&Clone3::default())? {
            Fork::Parent { pid, pidfd } => Ok(Self { pid, pidfd, _silence: silence }),
            Fork::Child => {
                drop(silence);
                if process::set_parent_death_signal(SIGKILL).is_ok() {
                    // A parent that died before the signal was set has closed its end.
                    let _ = sys::fd::read_byte(theirs.as_fd());
                }
                process::exit_now(0)
            }
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it.
    pub fn release(self) {
        let _ = process::signal(self.pidfd.as_fd(), SIGKILL);
        reap(self.pidfd.as_fd());
    }
}
