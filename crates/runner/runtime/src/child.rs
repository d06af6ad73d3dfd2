//! A process that the runtime has just cloned and that is becoming one of the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use sys::{Error, process};

const SIGKILL: i32 = 9;
/// `ECHILD`.
const NO_CHILD: i32 = 10;

/// How long a process that was killed may take to end before its parent stops waiting for it.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The new process: the stage until it has named what it made, then that.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    pidfd: OwnedFd,
    /// How many processes are still to be named until it is the one that runs the program: a stage makes the next.
    stages: u8,
    /// The stage that made it, until its status is taken.
    stage: Option<(i32, OwnedFd)>,
}

impl Child {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, stages: u8) -> Self {
        Self { pid, pidfd, stages, stage: None }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn is_stage(&self) -> bool {
        self.stages > 0
    }

    pub(crate) fn into_parts(self) -> (i32, OwnedFd) {
        self.end_stage();
        (self.pid, self.pidfd)
    }

    /// The stage has named the process that it made: `pid` takes its place.
    ///
    /// A number that is not that of a child of ours is refused: it could be any process of the host.
    pub(crate) fn replace(&mut self, pid: i32) -> Result<(), Error> {
        let pidfd = process::pidfd(pid)?;
        if pid == self.pid || !process::is_child(pidfd.as_fd())? {
            return Err(Error::new(NO_CHILD, format!("pid {pid}")));
        }
        self.end_stage();
        let stage = std::mem::replace(&mut self.pidfd, pidfd);
        self.stage = Some((std::mem::replace(&mut self.pid, pid), stage));
        self.stages = self.stages.saturating_sub(1);
        self.reap_stage();
        Ok(())
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), Error> {
        process::signal(self.pidfd.as_fd(), signal)
    }

    pub(crate) fn kill(&self) {
        // It may have ended by itself.
        let _ = self.signal(SIGKILL);
        self.end_stage();
    }

    /// Takes the status if it has ended; whether it has.
    pub(crate) fn reap(&mut self) -> bool {
        self.reap_stage();
        let ended = process::ended(self.pidfd.as_fd(), Duration::ZERO).unwrap_or(true);
        if ended {
            // A caller that takes the status of every child may have been first.
            let _ = process::try_wait(self.pidfd.as_fd());
        }
        ended
    }

    /// See [`crate::ongoing::Ongoing::awaits`].
    pub(crate) fn awaits(&self, pid: i32) -> bool {
        self.is_stage() || self.stage.as_ref().is_some_and(|(stage, _)| *stage == pid)
    }

    /// Takes the stage's status if it has ended.
    pub(crate) fn reap_stage(&mut self) {
        if let Some((_, stage)) = &self.stage
            && process::try_wait(stage.as_fd()).map_or(true, |exit| exit.is_some())
        {
            self.stage = None;
        }
    }

    /// The stage has nothing left to do once it has named what it made.
    fn end_stage(&self) {
        if let Some((_, stage)) = &self.stage {
            let _ = process::signal(stage.as_fd(), SIGKILL);
            let _ = process::try_wait(stage.as_fd());
        }
    }
}
