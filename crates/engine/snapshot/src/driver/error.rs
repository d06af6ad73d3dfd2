//! Why a driver's verb failed.

use std::path::PathBuf;

use spec::{HasKind, Kind};

/// Why a snapshot verb failed; texts follow containerd's.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SnapshotError {
    #[error("snapshot {0} does not exist: not found")]
    Missing(String),
    #[error("snapshot {0}: already exists")]
    Exists(String),
    #[error("committed snapshot {0}: already exists")]
    CommittedExists(String),
    #[error("missing parent {0:?} bucket: not found")]
    NoParent(String),
    #[error("parent {0:?} is not committed snapshot: invalid argument")]
    ParentKind(String),
    #[error("requested snapshot {0} not active or view: failed precondition")]
    NotMountable(String),
    #[error("snapshot {0:?} is not active: failed precondition")]
    NotActive(String),
    #[error("cannot change parent of active snapshot {0:?} on commit: invalid argument")]
    Reparent(String),
    #[error("snapshot {0:?} changed while it was being committed: aborted")]
    Raced(String),
    #[error("cannot remove snapshot with child: failed precondition")]
    HasChild,
    #[error("cannot update {field:?} field on snapshot {key:?}: invalid argument")]
    Field { field: String, key: String },
    #[error("invalid id map {0:?}: invalid argument")]
    IdMap(String),
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("snapshot records {path}")]
    Records { path: PathBuf, source: Box<redb::Error> },
    #[error("record file {path}")]
    RecordFile { path: PathBuf, source: std::io::Error },
    #[error("snapshot records {path}: the record of {key:?} is damaged: {why}")]
    Damaged { path: PathBuf, key: String, why: String },
    #[error("cannot {what} {path}")]
    Files { what: &'static str, path: PathBuf, source: sys::Error },
    #[error("{0}")]
    Stopped(spec::Error),
    #[error(
        "{0} does not report file types in directories (d_type), which overlay needs; on xfs, format with ftype=1"
    )]
    NoTypes(PathBuf),
}

impl SnapshotError {
    /// Names the file that a system call failed on.
    pub(crate) fn files(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(sys::Error) -> Self {
        let path = path.into();
        move |source| Self::Files { what, path, source }
    }
}

impl HasKind for SnapshotError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::NoParent(_) => Kind::NotFound,
            Self::Exists(_) | Self::CommittedExists(_) => Kind::AlreadyExists,
            Self::ParentKind(_) | Self::Reparent(_) | Self::Field { .. } | Self::IdMap(_) => {
                Kind::InvalidArgument
            }
            Self::NotMountable(_) | Self::NotActive(_) | Self::HasChild | Self::NoTypes(_) => {
                Kind::FailedPrecondition
            }
            Self::Raced(_) => Kind::Aborted,
            Self::Open { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(libc::EIO)),
            Self::Records { source, .. } => match source.as_ref() {
                error if is_damage(error) => Kind::DataLoss,
                redb::Error::Io(error) => Kind::from_errno(error.raw_os_error().unwrap_or(libc::EIO)),
                redb::Error::DatabaseAlreadyOpen => Kind::FailedPrecondition,
                _ => Kind::Internal,
            },
            Self::Damaged { .. } => Kind::DataLoss,
            Self::RecordFile { source, .. } => match source.raw_os_error().map(Kind::from_errno) {
                Some(Kind::ResourceExhausted) => Kind::ResourceExhausted,
                _ => Kind::Internal,
            },
            // A file that vanished is no snapshot that is missing: only records decide what exists.
            Self::Files { source, .. } => match Kind::from_errno(source.errno()) {
                Kind::ResourceExhausted => Kind::ResourceExhausted,
                Kind::Unavailable => Kind::Unavailable,
                _ => Kind::Internal,
            },
            Self::Stopped(error) => error.kind(),
        }
    }
}

/// Whether the file of a database is at fault: it is not what was written, or cannot be read.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    match error {
        // Also what a flipped bit makes of the version.
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
        redb::Error::Io(error) => {
            error.raw_os_error() == Some(libc::EIO)
                || matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}
