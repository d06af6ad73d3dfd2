//! A container that stands: its state directory, its processes and what can be done to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::runtime::{LinuxResources, Status};
use spec::{HasKind, Kind};

/// Why a verb on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No state of that id.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// Not possible in this state.
    #[error("cannot {verb} a container that is {status}")]
    State {
        /// What was asked.
        verb: &'static str,
        /// The state it is in.
        status: Status,
    },
    /// A system call failed.
    #[error("{step}")]
    System {
        /// What it was for.
        step: String,
        /// The call.
        source: sys::Error,
    },
}

impl HasKind for ContainerError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::State { .. } => Kind::FailedPrecondition,
            Self::System { source, .. } => Kind::from_errno(source.errno()),
        }
    }
}

/// A container on disk: `<root>/<id>/state.json`.
#[derive(Debug)]
pub struct Container {
    root: PathBuf,
    id: String,
}

impl Container {
    /// Reads the state of the container `id` below the state root `root`.
    pub fn load(root: &Path, id: &str) -> Result<Self, ContainerError> {
        let _ = (root, id);
        Err(ContainerError::NotFound(id.to_owned()))
    }

    /// The ids of the containers below `root`.
    pub fn list(root: &Path) -> Result<Vec<String>, ContainerError> {
        let _ = root;
        Ok(Vec::new())
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `<root>/<id>`.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    /// Pid of init in the caller's pid namespace, while it is alive.
    pub fn pid(&self) -> i32 {
        0
    }

    /// What it is doing now.
    pub fn status(&self) -> Result<Status, ContainerError> {
        Ok(Status::Stopped)
    }

    /// Lets the user's program run; then poststart hooks.
    pub fn start(&mut self) -> Result<(), ContainerError> {
        Err(ContainerError::NotFound(self.id.clone()))
    }

    /// Sends `signal` to init, or to every process when `all`.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ContainerError> {
        let _ = (signal, all);
        Err(ContainerError::NotFound(self.id.clone()))
    }

    /// Removes a stopped container (any, killing it first, when `force`); then poststop hooks. Bounded by `within`.
    pub fn delete(self, force: bool, within: Duration) -> Result<(), ContainerError> {
        let _ = (force, within);
        Err(ContainerError::NotFound(self.id))
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), ContainerError> {
        Err(ContainerError::NotFound(self.id.clone()))
    }

    /// Thaws every process.
    pub fn resume(&self) -> Result<(), ContainerError> {
        Err(ContainerError::NotFound(self.id.clone()))
    }

    /// Changes limits.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<(), ContainerError> {
        let _ = resources;
        Err(ContainerError::NotFound(self.id.clone()))
    }

    /// Every process of the container, in the caller's pid namespace.
    pub fn processes(&self) -> Result<Vec<i32>, ContainerError> {
        Ok(Vec::new())
    }
}
