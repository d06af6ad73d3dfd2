//! Watching a container for lack of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that becomes readable when the kernel has killed for lack of memory.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches the container whose init is `pid`.
    pub fn of(pid: u32) -> Option<Self> {
        let _ = pid;
        None
    }

    /// Whether something happened since the last call; `None` when the cgroup is gone.
    pub fn happened(&mut self) -> Option<bool> {
        None
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
