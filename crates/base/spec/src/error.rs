//! Error kinds: the one vocabulary in which every layer says how a verb failed.
//!
//! A verb's own error enum implements [`HasKind`]; crossing a trait boundary it becomes an [`Error`], which keeps the
//! kind, the text and the cause. The daemon maps kinds to gRPC codes in one place and the shim to ttrpc codes in one.
//!
//! Invariant: the text of an [`Error`] is complete; whoever prints it adds nothing but where it happened.

use std::fmt;

/// What went wrong, in the words of gRPC's status codes (which are containerd's error classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong, whatever the state of the system.
    InvalidArgument,
    /// The thing named does not exist.
    NotFound,
    /// The thing to be made exists.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// The caller did not say who it is, or not convincingly.
    Unauthenticated,
    /// A quota or the disk is exhausted.
    ResourceExhausted,
    /// The system is not in a state for this; repeating it unchanged will fail again.
    FailedPrecondition,
    /// The operation lost a race and may be tried again from its start.
    Aborted,
    /// Past the valid range, such as an offset beyond the end.
    OutOfRange,
    /// Not built, or not supported by this driver.
    Unimplemented,
    /// A broken invariant of our own, or a system call that failed unexpectedly.
    Internal,
    /// Not now; a retry may succeed.
    Unavailable,
    /// Stored data is lost or damaged.
    DataLoss,
    /// The deadline passed first.
    DeadlineExceeded,
    /// The caller gave up.
    Canceled,
    /// Anything else.
    Unknown,
}

impl Kind {
    /// The kind that fits an errno of a system call on our own files.
    pub fn from_errno(errno: i32) -> Self {
        // Numbers of asm-generic/errno-base.h and errno.h; the base layer links no libc.
        match errno {
            2 => Self::NotFound,
            17 => Self::AlreadyExists,
            1 | 13 => Self::PermissionDenied,
            12 | 24 | 23 | 28 | 122 => Self::ResourceExhausted,
            11 | 16 => Self::Unavailable,
            110 => Self::DeadlineExceeded,
            38 | 95 => Self::Unimplemented,
            22 => Self::InvalidArgument,
            _ => Self::Internal,
        }
    }

    /// The number of the gRPC (and ttrpc) status code.
    pub fn code(self) -> i32 {
        match self {
            Self::Canceled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::DataLoss => 15,
            Self::Unauthenticated => 16,
        }
    }

    /// The kind of a gRPC (or ttrpc) status code; [`Kind::Unknown`] for a number that has none.
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Self::Canceled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The words that containerd's errdefs appends to a message of this kind.
    pub fn words(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::Unauthenticated => "unauthenticated",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "not implemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Canceled => "canceled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// An error that knows its [`Kind`].
pub trait HasKind {
    /// How the verb failed.
    fn kind(&self) -> Kind;
}

/// An error at a trait boundary: a kind, a complete text, and what caused it.
pub struct Error {
    kind: Kind,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of a verb at a trait boundary.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a text of its own.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    /// `text: invalid argument`, as containerd words it.
    pub fn invalid(text: impl fmt::Display) -> Self {
        Self::worded(Kind::InvalidArgument, text)
    }

    /// `text: not found`, as containerd words it.
    pub fn not_found(text: impl fmt::Display) -> Self {
        Self::worded(Kind::NotFound, text)
    }

    /// `text: already exists`, as containerd words it.
    pub fn already_exists(text: impl fmt::Display) -> Self {
        Self::worded(Kind::AlreadyExists, text)
    }

    /// `text: failed precondition`, as containerd words it.
    pub fn failed_precondition(text: impl fmt::Display) -> Self {
        Self::worded(Kind::FailedPrecondition, text)
    }

    /// `text: not implemented`, as containerd words it.
    pub fn unimplemented(text: impl fmt::Display) -> Self {
        Self::worded(Kind::Unimplemented, text)
    }

    /// `text: unavailable`, as containerd words it.
    pub fn unavailable(text: impl fmt::Display) -> Self {
        Self::worded(Kind::Unavailable, text)
    }

    /// An error of ours that no caller can mend.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new(Kind::Internal, text)
    }

    /// `text: <words of the kind>`.
    pub fn worded(kind: Kind, text: impl fmt::Display) -> Self {
        Self::new(kind, format!("{text}: {kind}"))
    }

    /// Puts `what` before the text: `what: text`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// How the verb failed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The complete text, causes included.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl<E> From<E> for Error
where
    E: HasKind + std::error::Error + Send + Sync + 'static,
{
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self { kind: error.kind(), text, source: Some(Box::new(error)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot publish {name}")]
    struct Publish {
        name: &'static str,
        source: std::io::Error,
    }

    impl HasKind for Publish {
        fn kind(&self) -> Kind {
            Kind::from_errno(self.source.raw_os_error().unwrap_or(0))
        }
    }

    #[test]
    fn the_text_holds_every_cause_once() {
        let error = Error::from(Publish { name: "a", source: std::io::Error::from_raw_os_error(28) });
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert_eq!(error.to_string(), "cannot publish a: No space left on device (os error 28)");
    }

    #[test]
    fn containerd_words_follow_the_text() {
        assert_eq!(Error::not_found("image \"x\"").to_string(), "image \"x\": not found");
    }

    #[test]
    fn codes_and_kinds_are_inverse() {
        for code in 1..=16 {
            assert_eq!(Kind::from_code(code).code(), code);
        }
    }
}
