//! Exec: one more process in a running container.

use std::os::fd::OwnedFd;
use std::path::Path;

use spec::runtime::Process;
use spec::{HasKind, Kind};

use crate::container::Container;
use crate::create::Stdio;

/// A process to be added to a container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container it joins.
    pub container: &'a Container,
    /// What runs.
    pub process: Process,
    /// Standard streams; unused when the process has a terminal.
    pub stdio: Stdio,
    /// Unix socket that receives the terminal's master; without one it is [`Started::console`].
    pub console_socket: Option<&'a Path>,
    /// File that receives the pid.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors after the standard three the process keeps.
    pub preserve_fds: u32,
    /// Join even when the container is paused.
    pub ignore_paused: bool,
}

impl<'a> Exec<'a> {
    /// `process` in `container`, with inherited streams.
    pub fn new(container: &'a Container, process: Process) -> Self {
        Self {
            container,
            process,
            stdio: Stdio::default(),
            console_socket: None,
            pid_file: None,
            preserve_fds: 0,
            ignore_paused: false,
        }
    }

    /// Starts it; when this returns the program runs.
    pub fn run(self) -> Result<Started, ExecError> {
        Err(ExecError::Unready)
    }
}

/// What [`Exec::run`] started.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd, a child of the caller.
    pub pidfd: OwnedFd,
    /// Master of its terminal, when it has one and no console socket took it.
    pub console: Option<OwnedFd>,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container does not run.
    #[error("cannot exec in a stopped container")]
    Unready,
}

impl HasKind for ExecError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unready => Kind::FailedPrecondition,
        }
    }
}
