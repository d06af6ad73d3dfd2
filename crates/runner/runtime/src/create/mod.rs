//! Creation: plan, cgroup, clone, and the parent's half of the talk with init.

use std::os::fd::OwnedFd;
use std::path::Path;

use spec::runtime::Spec;
use spec::{HasKind, Kind};

use crate::container::Container;

/// The standard streams of a new process; `None` inherits the caller's.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// A container to be created.
#[derive(Debug)]
pub struct Create<'a> {
    /// State root, such as `/run/containerd/runc/<namespace>`.
    pub root: &'a Path,
    /// Its id.
    pub id: &'a str,
    /// The bundle directory.
    pub bundle: &'a Path,
    /// The configuration; `None` reads `<bundle>/config.json`.
    pub spec: Option<Spec>,
    /// Standard streams; unused when the process has a terminal.
    pub stdio: Stdio,
    /// Unix socket that receives the terminal's master; without one it is [`Created::console`].
    pub console_socket: Option<&'a Path>,
    /// File that receives init's pid.
    pub pid_file: Option<&'a Path>,
    /// Use `MS_MOVE` and `chroot(2)` instead of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after the standard three the process keeps.
    pub preserve_fds: u32,
}

impl<'a> Create<'a> {
    /// The container `id` of `bundle`, with inherited streams and nothing special.
    pub fn new(root: &'a Path, id: &'a str, bundle: &'a Path) -> Self {
        Self {
            root,
            id,
            bundle,
            spec: None,
            stdio: Stdio::default(),
            console_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
        }
    }

    /// Creates it: afterwards init waits at the gate for [`Container::start`].
    pub fn run(self) -> Result<Created, CreateError> {
        Err(CreateError::Exists(self.id.to_owned()))
    }
}

/// What [`Create::run`] made.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Pid of init.
    pub pid: i32,
    /// Pidfd of init, a child of the caller.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when it has one and no console socket took it.
    pub console: Option<OwnedFd>,
}

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The id is in use.
    #[error("container with id {0:?} exists already")]
    Exists(String),
}

impl HasKind for CreateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Exists(_) => Kind::AlreadyExists,
        }
    }
}
