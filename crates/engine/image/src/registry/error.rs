//! Why a request to a registry failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use spec::{HasKind, Kind};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection.
    #[error("failed to do request: {method} {url:?}")]
    Connect {
        /// The method.
        method: String,
        /// Where to; without its query.
        url: String,
        /// What the network said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Too long a silence.
    #[error("{method} {url:?}: no {what} within {after:?}")]
    Timeout {
        /// The method.
        method: String,
        /// Where to; without its query.
        url: String,
        /// What did not come.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// An answer other than the one that was hoped for.
    #[error("unexpected status from {method} request to {url}: {status}{message}")]
    Status {
        /// The method.
        method: String,
        /// Where to; without its query.
        url: String,
        /// The status.
        status: http::StatusCode,
        /// What the registry said about it; begins with a colon when there is something.
        message: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The connection broke, or the peer does not speak HTTP.
    #[error("{method} {url:?}: the connection failed")]
    Broken {
        /// The method.
        method: String,
        /// Where to; without its query.
        url: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body ended early.
    #[error("{url}: unexpected EOF after {got} of {wanted} bytes")]
    Short {
        /// Where from.
        url: String,
        /// How many bytes came.
        got: u64,
        /// How many were to come.
        wanted: u64,
    },
    /// The body is longer than it may be.
    #[error("{url}: the answer is longer than {limit} bytes")]
    Long {
        /// Where from.
        url: String,
        /// How long it may be.
        limit: u64,
    },
    /// An answer without what it must have.
    #[error("{url}: {what}")]
    Answer {
        /// Where from.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The registry wants credentials that nobody has, or refuses those that we have.
    #[error("authorization failed: {host}: {what}")]
    Denied {
        /// Who refuses.
        host: String,
        /// What it wants.
        what: String,
    },
    /// Whoever knows the passwords failed.
    #[error("failed to get credentials for {host}")]
    Credentials {
        /// For whom.
        host: String,
        /// Why.
        source: spec::Error,
    },
    /// No endpoint may be asked for this.
    #[error("no {0} hosts")]
    NoEndpoint(&'static str),
    /// What was asked for is not there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The bytes are not those that were promised.
    #[error("{url}: digest {found} is not the expected {wanted}")]
    Digest {
        /// Where from.
        url: String,
        /// What came.
        found: String,
        /// What was to come.
        wanted: String,
    },
    /// A certificate or a key that cannot be used.
    #[error("unable to use {path:?}: {what}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file that cannot be read.
    #[error("unable to read {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address that is none.
    #[error("invalid address {0:?}")]
    Address(String),
    /// The content to send could not be read.
    #[error("cannot read what is to be sent: {0}")]
    Local(spec::Error),
}

impl HasKind for RequestError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Short { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Status { status, .. } => match status.as_u16() {
                401 => Kind::Unauthenticated,
                403 => Kind::PermissionDenied,
                404 => Kind::NotFound,
                429 => Kind::ResourceExhausted,
                500..=599 => Kind::Unavailable,
                _ => Kind::Unknown,
            },
            Self::Long { .. } | Self::Answer { .. } => Kind::FailedPrecondition,
            Self::Digest { .. } => Kind::FailedPrecondition,
            Self::Denied { .. } => Kind::Unauthenticated,
            Self::Credentials { source, .. } => source.kind(),
            Self::NoEndpoint(_) | Self::NotFound(_) => Kind::NotFound,
            Self::Certificate { .. } | Self::Address(_) => Kind::InvalidArgument,
            Self::File { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Local(error) => error.kind(),
        }
    }
}

impl RequestError {
    /// How much of its patience a peer loses by this failure, of [`Limits::retries`](super::Limits) in all; `None` when
    /// trying again cannot help.
    pub fn strikes(&self) -> Option<u32> {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Short { .. } => Some(1),
            // A silence has taken long already: one more try, no more.
            Self::Timeout { .. } => Some(3),
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 429 | 500..=599).then_some(1),
            Self::Digest { .. } => Some(3),
            Self::Long { .. }
            | Self::Answer { .. }
            | Self::Denied { .. }
            | Self::Credentials { .. }
            | Self::NoEndpoint(_)
            | Self::NotFound(_)
            | Self::Certificate { .. }
            | Self::File { .. }
            | Self::Address(_)
            | Self::Local(_) => None,
        }
    }

    /// How long the peer asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// How much the error says: of several endpoints' errors the one that got furthest is reported.
    pub fn weight(&self) -> u8 {
        match self {
            Self::NoEndpoint(_) => 0,
            Self::Connect { .. } | Self::Timeout { .. } => 1,
            Self::NotFound(_) => 2,
            Self::Status { status, .. } if status.as_u16() == 404 => 2,
            _ => 3,
        }
    }
}
