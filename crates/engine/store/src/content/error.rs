//! How content fails.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::{Digest, HasKind, Kind};

/// Why a blob or an ingest is not as asked. Clients match on these texts.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The namespace has no such blob.
    #[error("content digest {0}: not found")]
    NoBlob(Digest),
    /// The namespace has the blob.
    #[error("content {0}: already exists")]
    Exists(Digest),
    /// The namespace has no such ingest.
    #[error("reference {0}: not found")]
    NoIngest(String),
    /// An ingest needs a name.
    #[error("ref must not be empty: invalid argument")]
    Reference,
    /// Another writer has the ingest open.
    #[error("ref {reference} locked for {held:?}: unavailable")]
    Locked {
        /// The ingest.
        reference: String,
        /// How long it has been open.
        held: Duration,
    },
    /// The data ended early or late.
    #[error("{reference:?} failed size validation: {found} != {wanted}: failed precondition")]
    Size {
        /// The ingest.
        reference: String,
        /// How much there is.
        found: u64,
        /// How much there should be.
        wanted: u64,
    },
    /// The data is not what it should be.
    #[error("unexpected commit digest {found}, expected {wanted}: failed precondition")]
    Digest {
        /// What it is.
        found: Digest,
        /// What it should be.
        wanted: Digest,
    },
    /// A mask names something that cannot change.
    #[error("cannot update {path:?} field on content info \"{digest}\": invalid argument")]
    Field {
        /// The path.
        path: String,
        /// The blob.
        digest: Digest,
    },
    /// More is to be kept than there is.
    #[error("cannot cut {reference} to {size} bytes, it has {offset}: out of range")]
    Cut {
        /// The ingest.
        reference: String,
        /// What is asked.
        size: u64,
        /// What is there.
        offset: u64,
    },
    /// The ingest has become a blob.
    #[error("cannot use the closed writer of {0}: failed precondition")]
    Closed(String),
}

impl HasKind for ContentError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoBlob(_) | Self::NoIngest(_) => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Reference | Self::Field { .. } => Kind::InvalidArgument,
            Self::Locked { .. } => Kind::Unavailable,
            Self::Size { .. } | Self::Digest { .. } | Self::Closed(_) => Kind::FailedPrecondition,
            Self::Cut { .. } => Kind::OutOfRange,
        }
    }
}

/// A call on a file that failed.
#[derive(Debug)]
pub struct FileError {
    call: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// The failure `source` of `call` on `path`.
    pub(crate) fn new(call: &'static str, path: &Path, source: io::Error) -> Self {
        Self { call, path: path.to_owned(), source }
    }

    /// Whether the file was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.path.display())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl HasKind for FileError {
    fn kind(&self) -> Kind {
        match self.source.raw_os_error() {
            // A file of ours that is missing or in the way is our fault, not the caller's.
            Some(2 | 17 | 22) | None => Kind::Internal,
            Some(errno) => Kind::from_errno(errno),
        }
    }
}
