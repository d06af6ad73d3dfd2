//! How the database fails.

use std::path::{Path, PathBuf};

use spec::{HasKind, Kind};

/// Error number of a disk that cannot read or write.
const EIO: i32 = 5;

/// Why the metadata database did not answer. Cloned for every writer of a group.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// Another process has it.
    #[error("{path} is in use: another containerd has this root directory: failed precondition")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or one whose pages do not match their checksums.
    #[error(
        "metadata database {path} is damaged: {why}; see \"When the records are lost\" in docs/operations.md"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk failed or is full.
    #[error("metadata database {path}: {why}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
        /// What they mean.
        kind: Kind,
        /// Whether the disk cannot read or write it (EIO).
        is_input_output: bool,
    },
    /// It had failed before, and has been opened again just now.
    #[error("the metadata database was opened again after a failure: unavailable")]
    Reopened,
    /// A row is not what a row of its table is.
    #[error("row {table} {key}: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// The key's parts.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl HasKind for DbError {
    fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. } => Kind::FailedPrecondition,
            Self::Damaged { .. } | Self::Row { .. } => Kind::DataLoss,
            Self::Storage { kind, .. } => *kind,
            Self::Reopened => Kind::Unavailable,
        }
    }
}

impl DbError {
    /// What redb's `error` on the file `path` means.
    pub(super) fn from_redb(path: &Path, error: redb::Error) -> Self {
        let path = path.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path },
            redb::Error::Corrupted(why) => Self::Damaged { path, why },
            redb::Error::UpgradeRequired(version) => Self::Damaged {
                path,
                why: format!("its file format {version} is older than any berth wrote"),
            },
            redb::Error::Io(error) if is_nonsense(&error) => Self::Damaged { path, why: error.to_string() },
            redb::Error::Io(error) => {
                let kind = error.raw_os_error().map_or(Kind::Internal, Kind::from_errno);
                let is_input_output = error.raw_os_error() == Some(EIO);
                Self::Storage { path, why: error.to_string(), kind, is_input_output }
            }
            redb::Error::PreviousIo => Self::Reopened,
            other => {
                Self::Storage { path, why: other.to_string(), kind: Kind::Internal, is_input_output: false }
            }
        }
    }
}

/// Whether the file was read and is not what it should be.
fn is_nonsense(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}
