//! Why one call of a plugin gave no result.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use spec::error::{HasKind, Kind};

use super::{Error, code};

/// Why one call of a plugin gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such plugin.
    #[error("failed to find plugin {plugin:?} in path {path:?}")]
    Missing {
        /// Its name.
        plugin: String,
        /// Where it was looked for.
        path: Vec<PathBuf>,
    },
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program or the thread.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Talking to it failed.
    #[error("cannot talk to {program}")]
    Talk {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time; a program was killed with its process group.
    #[error("no answer within {after:?}")]
    Timeout {
        /// How long it was given.
        after: Duration,
    },
    /// It wrote without end and was killed.
    #[error("wrote more than {limit} bytes")]
    TooMuch {
        /// The bound.
        limit: usize,
    },
    /// An earlier call for the same interface, whose caller gave up, has not ended yet.
    #[error("an earlier call for {ifname} of {container_id} still runs")]
    Busy {
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
    },
    /// It succeeded, but what it wrote is no result.
    #[error("what it wrote is no result ({excerpt:?})")]
    Garbage {
        /// The beginning of it.
        excerpt: String,
        /// Why.
        source: Error,
    },
    /// It said that it failed, or could not be given its configuration.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl HasKind for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::FailedPrecondition,
            Self::Start { source, .. } | Self::Talk { source, .. } => {
                Kind::from_errno(source.raw_os_error().unwrap_or(0))
            }
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Busy { .. } => Kind::Unavailable,
            Self::TooMuch { .. } | Self::Garbage { .. } => Kind::Internal,
            Self::Failed(error) => error.kind(),
        }
    }
}

impl From<CallError> for Error {
    /// For a plugin that called another: what it answers itself.
    fn from(error: CallError) -> Self {
        if let CallError::Failed(error) = error {
            return error;
        }
        let number = match error {
            CallError::Timeout { .. } | CallError::Busy { .. } => code::TRY_AGAIN,
            _ => code::INTERNAL,
        };
        Self::new(number, spec::error::Error::from(error).text())
    }
}
