//! Why a container was not created.

use std::path::PathBuf;

use spec::{HasKind, Kind};

use super::plan::PlanError;
use crate::cgroup::CgroupError;
use crate::hooks::HookError;
use crate::state::RecordError;

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The id cannot be a name of a directory.
    #[error("invalid container ID format: {0:?}")]
    Id(String),
    /// The id is in use.
    #[error("container with given ID already exists")]
    Exists(String),
    /// The configuration was not read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: sys::Error,
    },
    /// The configuration is not what it should be.
    #[error("{path} is not a configuration", path = .path.display())]
    Json {
        /// Its file.
        path: PathBuf,
        /// What is wrong where.
        source: serde_json::Error,
    },
    /// The configuration asks for what cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its cgroup was not made or limited.
    #[error("unable to apply cgroup configuration")]
    Cgroup(#[from] CgroupError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Its state was not written.
    #[error("cannot save the container's state")]
    Record(#[from] RecordError),
    /// A system call of the parent failed.
    #[error("{step}")]
    System {
        /// What it was for.
        step: String,
        /// The call.
        source: sys::Error,
    },
    /// The container's side failed; the text is complete.
    #[error("unable to start container process: error during container init: {text}")]
    Init {
        /// Errno of the failed call, 0 when there was none.
        errno: i32,
        /// What failed.
        text: String,
    },
    /// The container's side ended without a word.
    #[error("unable to start container process: container init was killed")]
    Died,
    /// The container's side did not get so far in time, and was killed.
    #[error("unable to start container process: timed out waiting for container init to {step}")]
    Timeout {
        /// What it should have done.
        step: &'static str,
    },
    /// The container's side sent what does not belong there, and was killed.
    #[error("unable to start container process: unexpected message from container init: {0}")]
    Unexpected(&'static str),
}

impl CreateError {
    /// Makes a failed call an error of the step it was for.
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(sys::Error) -> Self {
        move |source| Self::System { step: step.into(), source }
    }
}

impl HasKind for CreateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Id(_) | Self::Json { .. } => Kind::InvalidArgument,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Read { source, .. } | Self::System { source, .. } => Kind::from_errno(source.errno()),
            Self::Plan(source) => source.kind(),
            Self::Cgroup(source) => source.kind(),
            Self::Hook(source) => source.kind(),
            Self::Record(source) => source.kind(),
            // What a command-line runtime would have said; containerd passes that on without a class.
            Self::Init { .. } | Self::Died | Self::Unexpected(_) => Kind::Unknown,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
        }
    }
}
